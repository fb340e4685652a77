"""Fixed point in float64: whole numbers whose products and sums are exact, so order is nothing.

A matrix product in floating point depends on how its sums are ordered, and so on how many rows are
computed together and where each stands among them: whoever chooses the model can make that
difference as large as they like. Here it can't arise (decision 0060):

1. Rows are rounded to whole numbers of `BITS` bits times a power of two that follows from their
   *own recipient's* numbers alone; weights to whole numbers of as many bits as leave room.
2. A sum of their products stays below 2⁵³ in each of its partial sums. All of them are exact in
   float64, fused or not, whatever the kernel, the block and the order.
3. Between products there is nothing but what IEEE 754 rounds correctly, number by number: +, ×, ÷,
   √, rounding, comparing, and powers of two.

So what is computed for a recipient is a function of the parameters and of that recipient's rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EXACT = 53  # bits: whole numbers up to 2⁵³ are float64s (IEEE 754)

BITS = 18
"""Of rows' values and signals: 2⁻¹⁹ of the recipient's largest number is what rounding takes."""

WEIGHT_BITS = 26
"""Of weights, at most: more than float32 has; fewer where sums are long (`weights`)."""

PIECE = 1 << 10  # rows at a time: they stay in the cache, and their sums below 2⁵³
ALONE = 1 << 12  # the same where each recipient has one row
CACHED = 1 << 18  # numbers of one layer that a piece holds, about: 2 MiB

_SMALLEST = 2.0**-1000  # stands for 0 where a power of two above it is wanted
_SMALLEST_WEIGHT = 2.0**-149  # of float32
_EXPONENT = 0x7FF0000000000000  # of a float64's bits


class Fixed(NamedTuple):
    """A linear layer's weights and, in the last column, biases as whole numbers.

    Attributes:
        whole: `(outputs + 1, inputs + 1)` float64; the last line is 0, so that what the layer gives
            has room for the next one's constant.
        scale: a power of two: what one stands for.
    """

    whole: Tensor
    scale: float


def powers_above(values: Tensor) -> Tensor:
    """For each float64 at least 0 a power of two above it, at most twice as large."""
    bits = values.clamp(min=_SMALLEST).view(torch.int64) & _EXPONENT
    return bits.view(torch.float64) * 2.0


def largest(values: Tensor, recipients: int, *, signed: bool = True) -> Tensor:
    """Each recipient's largest magnitude, `(recipients,)`; NaN where one is."""
    flat = values.view(recipients, -1)
    top = flat.amax(1)
    return torch.maximum(top, -flat.amin(1)) if signed else top


def round_rows(values: Tensor, recipients: int, *, signed: bool = True) -> Tensor:
    """Round to whole numbers of `BITS` bits, in place, each recipient on their own.

    Args:
        values: `(rows, numbers)` float64, each recipient's rows next to each other, equally many.
        recipients: how many.
        signed: whether a number may be negative.

    Returns:
        What one stands for: a power of two for each recipient, `(recipients,)`.
    """
    powers = powers_above(largest(values, recipients, signed=signed))
    values.view(recipients, -1).mul_((2.0**BITS / powers)[:, None]).round_()
    return powers * 2.0**-BITS


def weights(weight: Tensor, bias: Tensor | None) -> Fixed:
    """A linear layer's parameters as whole numbers.

    Args:
        weight: `(outputs, inputs)`, finite.
        bias: `(outputs,)`, finite, or none.
    """
    outputs, inputs = weight.shape
    whole = torch.zeros(outputs + 1, inputs + 1, dtype=torch.float64)
    whole[:outputs, :inputs] = weight
    if bias is not None:
        whole[:outputs, inputs] = bias
    bits = min(WEIGHT_BITS, EXACT - BITS - (max(whole.shape) - 1).bit_length())
    power = powers_above(whole.abs().amax().clamp(min=_SMALLEST_WEIGHT))
    whole.mul_(2.0**bits / power).round_()
    return Fixed(whole, float(power) * 2.0**-bits)


def widened(values: Tensor) -> Tensor:
    """Float64 values with one more column of 0."""
    wide = torch.empty(len(values), values.shape[1] + 1, dtype=torch.float64)
    wide[:, :-1] = values
    wide[:, -1] = 0.0
    return wide
