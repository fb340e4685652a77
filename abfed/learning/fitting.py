"""Whether a network of one's own can be trained on these rows, said before a step is taken.

What doesn't fit would end in an error of torch's deep inside a product, or, where a stack takes
other columns than there are, in a model of columns that nobody has. What a silo has prepared is
refused by nothing that depends on a row: network, design and loss decide. Rows that somebody gives
in memory, their own, must agree with one another and with their design besides.
"""

from __future__ import annotations

import copy
from numbers import Real

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from abfed.learning.batches import Batch
from abfed.learning.design_matrix import RecipientRows
from abfed.learning.losses import HeadsLoss, Loss
from abfed.protocol.modelling import Training


def check_given(
    network: object,
    data: object,
    settings: object,
    noise: object,
    loss: object,
    checkpoint: object = None,
) -> None:
    """Refuse what can't be what its name says, and rows that don't agree.

    Args:
        network: looked at by `check_trainable` too.
        data: rows in memory are looked over as a whole; what a silo has prepared is as it made it.
        settings: of the training.
        noise: where batches and noise come from.
        loss: what is made small; tried by `check_fits` too.
        checkpoint: where a round is taken up again, or None.

    Raises:
        TypeError: one of them is something else; says which, and what is wanted.
        ValueError: see `check_trainable` and `check_rows`.
    """
    kept = hasattr(data, "recipients") and hasattr(data, "batches")
    wanted = (
        ("network", network, isinstance(network, nn.Module), "a torch.nn.Module"),
        ("data", data, kept or isinstance(data, RecipientRows), "RecipientRows or TrainingRows"),
        ("settings", settings, isinstance(settings, Training), "abfed.protocol.modelling.Training"),
        ("noise", noise, hasattr(noise, "poisson_batch"), "a source of noise, as SystemNoise()"),
        ("loss", loss, _has(loss, "total", "signals"), "a loss, as LOGISTIC of learning.losses"),
        ("checkpoint", checkpoint, checkpoint is None or _has(checkpoint, "load", "save"),
         "None or a Checkpoint, with load() and save()"),
    )  # fmt: skip
    for name, given, fits, what in wanted:
        if isinstance(given, type):
            message = f"{name} must be {what}, not the class {given.__name__}"
            raise TypeError(message)
        if not fits:
            message = f"{name} must be {what}, not {type(given).__name__}"
            raise TypeError(message)
    if isinstance(data, RecipientRows):
        check_rows(data)
    if isinstance(network, nn.Module):
        check_trainable(network)


def check_number(name: str, given: object) -> None:
    """Refuse what can't be compared with a bound.

    Raises:
        TypeError: says which argument it is.
    """
    if isinstance(given, bool) or not isinstance(given, Real):
        message = f"{name} must be a number, not {type(given).__name__}"
        raise TypeError(message)


def _has(given: object, *names: str) -> bool:
    return all(callable(getattr(given, name, None)) for name in names)


def check_kept(found: object, *, steps: int, numbers: int) -> tuple[int, npt.NDArray[np.float32]]:
    """What a checkpoint holds, if a round of so many steps and parameters can go on from there.

    Raises:
        ValueError: says what is wrong with it, and what to do.
    """
    wrong = ""
    match found:
        case (int() | np.integer() as taken, np.ndarray() as kept) if kept.dtype.kind == "f":
            if not 0 <= taken <= steps:
                wrong = f"it says that {taken} steps were taken, and the round has {steps}"
            elif kept.size != numbers:
                wrong = f"it holds {kept.size} parameters, and {numbers} are trained"
            elif not np.isfinite(kept).all():
                wrong = "it holds a number that is not finite"
            else:
                return int(taken), kept.astype(np.float32).ravel()
        case _:
            wrong = "its load() gives no number of steps with an array of floats"
    message = (
        f"the checkpoint is damaged, or of another round: {wrong}; "
        "train the round without it, from its first step"
    )
    raise ValueError(message)


def check_rows(data: RecipientRows) -> None:
    """Refuse rows of which one part has another number than the others, or arms that aren't there.

    Raises:
        ValueError: says which part, and how many there should be; never a row's value.
    """
    rows, width, offsets = len(data.labels), data.design.feature_width, np.asarray(data.offsets)
    if data.features.shape != (rows, width):
        message = (
            f"features have the shape {data.features.shape}, and {rows} labels of this design "
            f"want {(rows, width)}: one line a row, one column for each of design.feature_names"
        )
        raise ValueError(message)
    if data.arms.shape != (rows,):
        message = f"arms have the shape {data.arms.shape}, and labels are of {rows} rows"
        raise ValueError(message)
    if rows and not 0 <= int(data.arms.min()) <= int(data.arms.max()) < len(data.design.arms):
        message = f"an arm's code is not the place of one of the design's {len(data.design.arms)}"
        raise ValueError(message)
    whole = offsets.ndim == 1 and len(offsets) > 0 and offsets[0] == 0 and offsets[-1] == rows
    if not whole or (offsets[1:] < offsets[:-1]).any():
        message = f"offsets must go up from 0 to the number of rows, {rows}: one more than people"
        raise ValueError(message)


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
        if not bool(torch.isfinite(each).all()):
            message = (
                f"the network's {name} holds a number that is not finite: no step leads back from "
                "there; start from a network whose numbers all are"
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
    if isinstance(loss, HeadsLoss) and told != loss.heads.labels:
        message = (
            f"rows have {told} labels each, and the loss reads {loss.heads.labels}: "
            "outcomes, then what was bought, then the arm's code, as its heads say"
        )
        raise ValueError(message)
    wanted = loss.heads.outputs if isinstance(loss, HeadsLoss) else told
    if given != wanted:
        message = (
            f"the network gives {given} numbers a row, and its loss wants {wanted}, as rows have "
            f"labels for: make its last layer nn.Linear(…, {wanted})"
        )
        raise ValueError(message)
    _check_tells(loss, torch.zeros_like(found), torch.zeros(1, *labels.shape[1:]))


def _check_tells(loss: Loss, scores: Tensor, labels: Tensor) -> None:
    """Refuse a loss whose two sides can't be had of a row of zeros.

    Raises:
        ValueError: says which, and what it should be.
    """
    for name, shape in (("total", ()), ("signals", scores.shape)):
        try:
            found = getattr(loss, name)(scores, labels)
        except (RuntimeError, IndexError, TypeError, AttributeError, ValueError, KeyError) as error:
            message = f"the loss's {name}(scores, labels) ends in an error: {error}"
            raise ValueError(message) from error
        if not isinstance(found, Tensor) or found.shape != shape:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found)
            message = (
                f"the loss's {name}(scores, labels) must be a tensor of shape {tuple(shape)}, "
                f"not {what}"
            )
            raise ValueError(message)
