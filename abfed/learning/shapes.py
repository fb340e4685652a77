"""Which arrays cross the wall while a model is learned, known from the plan alone.

The gate and the coordinator check against these; neither torch nor data is needed to know them.
A parameter is called the same everywhere: `hidden1.weight`, …, `output.bias`; it travels to a silo
under `model/` and comes back, as a noised difference, under `update/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from abfed.learning.design_matrix import Design
from abfed.learning.evaluation import AMOUNT_BINS, BINS, BINS_BEFORE
from abfed.learning.heads import Heads
from abfed.learning.uplift import COLUMN_BINS, UPLIFT_BINS
from abfed.protocol.canonical import sha256_hex
from abfed.protocol.plan import Plan
from abfed.protocol.tensors import Shape, pack

MODEL = "model/"
UPDATE = "update/"
MASKED = "masked"
"""Sums of gradients of all parameters, in 2⁻⁴⁰ of the clip, under masks."""

UNIT_BITS = 40
"""Clipped gradients are whole multiples of 2⁻⁴⁰ of the clip."""

HISTOGRAM = "histogram"
SINGLE = "single-column"
"""Histogram of the outcome by the single column that the model leans on most."""

UPLIFT = "uplift"
"""For each treated arm: control and arm by outcome and bin of the model's uplift."""

UPLIFT_SINGLE = "uplift-single-column"
"""The same by the single column on which the model's uplift depends most."""

POLICY = "policy"
"""Recommended arm by arm and outcome."""

FURTHER = "further-outcomes"
"""For each logit but the first, the histogram of its outcome by its score."""

REVENUE = "revenue"
"""Revenue that was predicted by revenue that there was, both in bins."""

LARGEST_PARAMETER = 1e6
"""Parameters stay within ± this; an incoming model beyond it is refused."""

Value = TypeVar("Value")


def layer_names(hidden: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the linear layers, from the input on."""
    return (*(f"hidden{place}" for place in range(1, len(hidden) + 1)), "output")


def parameter_shapes(plan: Plan) -> dict[str, Shape]:
    """The parameters of a plan's network, in the order of its layers; weights are (out, in).

    Raises:
        ValueError: the plan has no model.
    """
    if plan.model is None:
        message = "the plan has no model"
        raise ValueError(message)
    sizes = (Design.of(plan).width, *plan.model.hidden, Heads.of(plan).outputs)
    shapes: dict[str, Shape] = {}
    for place, name in enumerate(layer_names(plan.model.hidden)):
        shapes[f"{name}.weight"] = Shape("float32", (sizes[place + 1], sizes[place]))
        shapes[f"{name}.bias"] = Shape("float32", (sizes[place + 1],))
    return shapes


def initial_arrays(plan: Plan) -> dict[str, npt.NDArray[np.float32]]:
    """The parameters of the first model, by their own names (`parameter_shapes`). Public.

    A plan gives exactly one: weights come from its digest through a generator of their own, so each
    side makes the same ones. They are uniform in ±√(6 / inputs) (He et al. 2015, for ReLU). Biases
    are 0, and so are the weights of logistic regression, which needs nothing to break a symmetry.
    """
    shapes = parameter_shapes(plan)
    generator = np.random.default_rng(int(plan.digest[:32], 16))
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for name, (_, shape) in shapes.items():
        array = np.zeros(shape, dtype=np.float32)
        if len(shapes) > 2 and not name.endswith(".bias"):
            bound = (6.0 / shape[1]) ** 0.5
            array = (generator.random(shape, dtype=np.float32) * 2 - 1) * np.float32(bound)
        arrays[name] = array
    return arrays


def model_shapes(plan: Plan) -> dict[str, Shape]:
    """The arrays that come with a request to train or to evaluate."""
    return prefixed(MODEL, parameter_shapes(plan))


def release_shapes(plan: Plan, step: str) -> dict[str, Shape]:
    """The arrays that answer a step of training or evaluation.

    Raises:
        ValueError: the step is neither.
    """
    histogram = {HISTOGRAM: Shape("int64", (2, BINS))}
    if step == "evaluate":
        arms, heads = len(plan.arms), Heads.of(plan)
        if heads.further:
            histogram |= {FURTHER: Shape("int64", (heads.further, 2, BINS))}
        if heads.bound:
            histogram |= {REVENUE: Shape("int64", (AMOUNT_BINS, AMOUNT_BINS))}
        return histogram | {
            SINGLE: Shape("int64", (2, COLUMN_BINS)),
            UPLIFT: Shape("int64", (arms - 1, 2, 2, UPLIFT_BINS)),
            UPLIFT_SINGLE: Shape("int64", (arms - 1, 2, 2, COLUMN_BINS)),
            POLICY: Shape("int64", (arms, arms, 2)),
        }
    if not step.startswith("train-"):
        message = f"step {step!r} neither trains nor evaluates"
        raise ValueError(message)
    return prefixed(UPDATE, parameter_shapes(plan)) | histogram


def summed_shapes(plan: Plan) -> dict[str, Shape]:
    """What answers a round of training whose noise is added once: gradients under masks."""
    size = sum(math.prod(shape.shape) for shape in parameter_shapes(plan).values())
    return {MASKED: Shape("int64", (size,)), HISTOGRAM: Shape("int64", (2, BINS))}


def as_given(shapes: Mapping[str, Shape], version: int) -> Mapping[str, Shape]:
    """The arrays of a release as a site that spoke this version of the protocol gave them."""
    if version > 4:
        return shapes
    return {
        name: Shape(dtype, (*shape[:-1], BINS_BEFORE)) if name in (HISTOGRAM, FURTHER) else one
        for name, one in shapes.items()
        for dtype, shape in (one,)
    }


def names_of(model: Mapping[str, npt.NDArray[Any]]) -> tuple[str, str]:
    """What names a model: digests of its parameters as a run holds them, and as requests do.

    A registry names a model by the first, a silo by the second; whoever freezes one must mean both.

    Args:
        model: by names on the wire.
    """
    return sha256_hex(pack(unprefixed(MODEL, model))), sha256_hex(pack(model))


def prefixed(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Parameters by their name on the wire."""
    return {prefix + name: value for name, value in values.items()}


def unprefixed(prefix: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """Parameters by their own name; what doesn't travel under `prefix` is left out."""
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
