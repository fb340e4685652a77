"""Whether a network of one's own can be trained on these rows, said before a step is taken.

What doesn't fit would end in an error of torch's deep inside a product, or, where a stack takes
other columns than there are, in a model of columns that nobody has. Nothing here looks at a value:
what is refused follows from the network, the design and the loss.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from abfed.learning.batches import Batch
from abfed.learning.losses import HeadsLoss, Loss


def check_trainable(network: nn.Module) -> None:
    """Refuse what has nothing to train, or numbers that rows can't be multiplied with.

    Raises:
        ValueError: says which part, why, and what to do.
    """
    if not any(each.requires_grad for each in network.parameters()):
        message = (
            "the network has nothing to train: none of its parameters requires a gradient; "
            "give it a layer that does, or call requires_grad_() on it"
        )
        raise ValueError(message)
    for name, each in (*network.named_parameters(), *network.named_buffers()):
        if each.is_floating_point() and each.dtype is not torch.float32:
            message = (
                f"the network's {name} is {str(each.dtype).removeprefix('torch.')}: rows are "
                "float32, and so is what is made of them; call .float() on the network"
            )
            raise ValueError(message)


def check_fits(network: nn.Module, batch: Batch, loss: Loss) -> None:
    """Refuse a network that takes other columns than a row has, or tells another number of things.

    Args:
        network: a copy of it is run on one line of zeros, by torch alone.
        batch: the first; only its shape is looked at, and it may be empty.
        loss: what is made small.

    Raises:
        ValueError: says how many there are, how many there should be, and what to do.
    """
    lines, labels = batch.lines, batch.labels
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            line = torch.zeros(1, *lines.shape[1:], dtype=lines.dtype)
            found = copy.deepcopy(network)(line)
            given = int(found.numel())
    except (RuntimeError, IndexError, TypeError, AttributeError) as error:
        message = (
            f"the network can't be run on a line of {lines.shape[-1]} numbers, which is what a row "
            f"here has ({error}): make its first layer nn.Linear(design.width, …)"
        )
        raise ValueError(message) from error
    told = 1 if labels.dim() == 1 else int(labels.shape[1])
    wanted = loss.heads.outputs if isinstance(loss, HeadsLoss) else told
    if given != wanted:
        message = (
            f"the network gives {given} numbers a row, and its loss wants {wanted}, as rows have "
            f"labels for: make its last layer nn.Linear(…, {wanted})"
        )
        raise ValueError(message)
