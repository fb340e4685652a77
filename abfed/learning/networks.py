"""The network of a plan: a multi-layer perceptron or logistic regression.

1. A plan gives exactly one network.
2. Torch's global generator is neither read nor moved.
3. Parameters travel as flat arrays (`abfed.learning.shapes`); only here do they meet torch's.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from abfed.learning.fixedpoint import ALONE
from abfed.learning.passes import Passes
from abfed.learning.shapes import layer_names, parameter_shapes
from abfed.learning.stacks import Stack
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Arrays


class _Alone:
    """How many are inside `one_thread`, and how many threads torch had before the first."""

    lock = threading.Lock()
    inside = 0
    before = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: for networks this small a second one only gets in the way.

    Part of the setting is the process's, and silos of one process may train at the same time: it
    stays as long as anybody is inside (a product that is shared out may round differently).
    """
    with _Alone.lock:
        if _Alone.inside == 0:
            _Alone.before = torch.get_num_threads()
        _Alone.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _Alone.lock:
            _Alone.inside -= 1
            if _Alone.inside == 0:
                torch.set_num_threads(_Alone.before)


def network_for(plan: Plan, parameters: Arrays) -> nn.Sequential:
    """The plan's network with these parameters.

    Args:
        plan: with a model.
        parameters: by their own names, as `parameter_shapes` has them. They are copied.
    """
    shapes = parameter_shapes(plan)
    hidden = plan.model.hidden if plan.model is not None else ()
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name in layer_names(hidden):
        outputs, inputs = shapes[f"{name}.weight"].shape
        # skip_init, as usual initialisation would draw from the global generator
        layers[name] = nn.utils.skip_init(nn.Linear, inputs, outputs)
        if name != "output":
            layers[f"{name}-relu"] = nn.ReLU()
    network = nn.Sequential(layers)
    state = {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}
    network.load_state_dict(state)
    return network


def parameters_of(network: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """A copy of a network's parameters by their own names."""
    return {name: value.detach().numpy().copy() for name, value in network.named_parameters()}


def logits(network: nn.Module, lines: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The first score of each line of the design matrix, `(rows,)`. Rows: sensitive."""
    return scores_of(network, lines)[:, 0]


def scores_of(network: nn.Module, lines: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """All scores of lines of the design matrix, `(rows, outputs)`. Rows: sensitive.

    A row's score is a function of the parameters and of that row, bit for bit: which other rows are
    there changes nothing (decision 0060). A model may be so large that a score overflows; what
    isn't a number scores 0.
    """
    scores = np.zeros((len(lines), _outputs(network)))
    stack, rows = Stack.of(network), torch.from_numpy(lines)
    with torch.no_grad():
        if stack is None or not stack.takes(rows):
            for place, row in enumerate(rows):
                scores[place] = network(row.clone()[None]).double().numpy()[0]
        elif (passes := Passes(stack)).finite:
            for start in range(0, len(rows), ALONE):
                piece = rows[start : start + ALONE]
                found = passes.forward(piece, len(piece))
                scores[start : start + ALONE] = torch.where(found.alive[:, None], found.scores, 0.0)
    return np.where(np.isnan(scores), 0.0, scores)


def _outputs(network: nn.Module) -> int:
    """How many numbers a network gives a row: as its last layer with a bias has."""
    last = [value for value in network.parameters() if value.dim() > 0][-1]
    return int(last.shape[0])
