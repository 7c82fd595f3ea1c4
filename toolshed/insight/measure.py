"""What can be counted and summed in an array, as compiled code that gives back a few words.

Each array becomes one row of `WORDS` words: three sums, the smallest and the largest value, an exponent,
and the counts of a histogram. `toolshed.insight.statistics` makes numbers for people out of them.

Values are taken apart by their bits. So nothing overflows when it is squared, subnormal numbers count
where a CPU would take them for zero, and the smallest and the largest value are exact.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Integer, Shaped

BINS_A_SIGN = 24
BINS = 2 * BINS_A_SIGN + 1
"""Bins of the histogram: 24 for negative values, one for zero, 24 for positive ones."""

SMALLEST = -30
"""Magnitudes below ``2**SMALLEST`` share a bin; each of the next holds two powers of two."""

# The words of a row: three sums, the least and the largest value, an exponent, and then the counts.
MEAN, SQUARES, DEVIATIONS, MINIMUM, MAXIMUM, EXPONENT, COUNTS = range(7)
NAN, NEGATIVE_INFINITY, POSITIVE_INFINITY = (COUNTS + BINS + i for i in range(3))
WORDS = POSITIVE_INFINITY + 1
_PADDING = WORDS - COUNTS  # a bin that is dropped

WIDTH = 128
"""Values in one line of a pack."""

TOGETHER = 256
"""Arrays that are measured in one call."""


class Format(NamedTuple):
    """A floating-point format in which values are measured.

    Attributes:
      floating, signed, unsigned: numpy types of its size.
      mantissa: bits of the mantissa.
      bias: of the exponent.
    """

    floating: Any
    signed: Any
    unsigned: Any
    mantissa: int
    bias: int

    @property
    def infinity(self) -> Any:
        """The bits of infinity; those of NaN are larger."""
        return self.signed((2 * self.bias + 1) << self.mantissa)


SINGLE = Format(np.float32, np.int32, np.uint32, 23, 127)
DOUBLE = Format(np.float64, np.int64, np.uint64, 52, 1023)


def format_of(dtype: Any) -> Format:
    """`DOUBLE` for types of 64 bits (of which a complex128 has two), else `SINGLE`."""
    dtype = np.dtype(dtype)
    return DOUBLE if dtype.itemsize // (2 if dtype.kind == "c" else 1) == 8 else SINGLE


@functools.partial(jax.jit, static_argnames="one_cpu")
def measure_whole(array: Array, *, one_cpu: bool) -> Shaped[Array, "1 words"]:
    """Measures one array where it lies: one that is sharded is measured shard by shard.

    Args:
      array: any numbers in any shape, at least one.
      one_cpu: whether it all lies on one CPU, where other ways to count and to compare are faster.

    Returns:
      Its row, uint32[1, WORDS]; uint64 for types of 64 bits.
    """
    return _measure(plain(array, format_of(array.dtype)), Whole(one_cpu), format_of(array.dtype))


@functools.partial(jax.jit, static_argnames=("lines", "form"))
def pack(arrays: Sequence[Array], *, lines: int, form: Format) -> Float[Array, "lines w"]:
    """Small arrays in one format, one after the other in lines of `WIDTH`; each begins a new line."""
    pieces = []
    for array in arrays:
        pieces += [plain(array, form).ravel(), np.zeros(-array.size % WIDTH, form.floating)]
    length = sum(piece.size for piece in pieces)
    pieces.append(np.zeros(lines * WIDTH - length, form.floating))
    return jnp.concatenate(pieces).reshape(lines, WIDTH)


@functools.partial(jax.jit, static_argnames="one_cpu")
def measure_packed(
    packed: Float[Array, "lines w"],
    filled: Int32[Array, "lines"],
    rows: Int32[Array, "lines"],
    *,
    one_cpu: bool,
) -> Shaped[Array, "rows words"]:
    """Measures the arrays in a pack. It is compiled for each number of lines, not for each tree.

    Args:
      packed: from `pack`.
      filled: how many values of each line are no padding.
      rows: to which array each line belongs, ascending, below `TOGETHER`.
      one_cpu: see `measure_whole`.

    Returns:
      A row for each array, as `measure_whole` gives it, [TOGETHER, WORDS].
    """
    return _measure(packed, Packed(filled, rows, one_cpu), format_of(packed.dtype))


def plain(x: Array, form: Format) -> Float[Array, "..."]:
    """The values as floating-point numbers of a format; of complex ones the magnitude."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        real, imag = jnp.abs(x.real), jnp.abs(x.imag)
        # What is compared with 0 may be subnormal, and jnp.abs of a complex number would flush it.
        magnitude = jnp.where(imag == 0, real, jnp.where(real == 0, imag, jnp.abs(x)))
        magnitude = jnp.where(jnp.isinf(real) | jnp.isinf(imag), jnp.inf, magnitude)
        x = jnp.where(jnp.isnan(real) | jnp.isnan(imag), jnp.nan, magnitude)
    return x.astype(form.floating)


class Whole:
    """All values of an array belong to one row."""

    def __init__(self, one_cpu: bool):
        self._one_cpu = one_cpu
        self.valid = True

    def sum(self, values: Shaped[Array, "..."]) -> Shaped[Array, "1"]:
        """The sum of each row."""
        return values.sum()[None]

    def max(self, values: Shaped[Array, "..."]) -> Shaped[Array, "1"]:
        """The largest value of each row."""
        return values.max()[None]

    def min(self, values: Shaped[Array, "..."]) -> Shaped[Array, "1"]:
        """The smallest value of each row."""
        return values.min()[None]

    def extremes(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The smallest of some values and the largest of others, of each row."""
        least, largest = _extremes(low, high, tuple(range(low.ndim)), self._one_cpu)
        return least[None], largest[None]

    def spread(self, of_rows: Shaped[Array, "1"]) -> Shaped[Array, ""]:
        """What belongs to a row, in a shape that meets its values."""
        return of_rows[0]

    def count(self, bins: Integer[Array, "..."]) -> Integer[Array, "1 bins"]:
        """How many values of each row are in each bin."""
        if self._one_cpu:
            return jnp.zeros(WORDS - COUNTS, np.uint32).at[bins].add(1, mode="drop")[None]
        return _compare(bins, tuple(range(bins.ndim)))[None]

    def positions(self, shape: tuple[int, ...]) -> Integer[Array, "..."]:
        """The place of each value in its array, counted along the last axis first."""
        at = jnp.zeros(shape, np.int32)
        for axis in range(len(shape)):
            at = at * shape[axis] + lax.broadcasted_iota(np.int32, shape, axis)
        return at


class Packed:
    """The lines of a pack belong to rows, several lines to one; see `measure_packed` and `Whole`."""

    def __init__(self, filled: Int32[Array, "lines"], rows: Int32[Array, "lines"], one_cpu: bool):
        self._rows, self._one_cpu = rows, one_cpu
        self.valid = np.arange(WIDTH) < filled[:, None]

    def sum(self, values: Shaped[Array, "lines w"]) -> Shaped[Array, "rows"]:
        return self._join(jax.ops.segment_sum, values.sum(axis=1))

    def max(self, values: Shaped[Array, "lines w"]) -> Shaped[Array, "rows"]:
        return self._join(jax.ops.segment_max, values.max(axis=1))

    def min(self, values: Shaped[Array, "lines w"]) -> Shaped[Array, "rows"]:
        return self._join(jax.ops.segment_min, values.min(axis=1))

    def extremes(self, low: Array, high: Array) -> tuple[Array, Array]:
        low, high = _extremes(low, high, (1,), self._one_cpu)
        return self._join(jax.ops.segment_min, low), self._join(jax.ops.segment_max, high)

    def spread(self, of_rows: Shaped[Array, "rows"]) -> Shaped[Array, "lines 1"]:
        return of_rows[self._rows][:, None]

    def count(self, bins: Integer[Array, "lines w"]) -> Integer[Array, "rows bins"]:
        if self._one_cpu:
            counts = jnp.zeros((TOGETHER, WORDS - COUNTS), np.uint32)
            return counts.at[self._rows[:, None], bins].add(1, mode="drop")
        return self._join(jax.ops.segment_sum, _compare(bins, (1,)))

    def positions(self, shape: tuple[int, ...]) -> Integer[Array, "lines w"]:
        lines = lax.broadcasted_iota(np.int32, shape, 0)
        first = self._join(jax.ops.segment_min, lines[:, 0])
        return (lines - self.spread(first)) * WIDTH + lax.broadcasted_iota(np.int32, shape, 1)

    def _join(self, segment: Any, lines: Array) -> Array:
        return segment(lines, self._rows, TOGETHER, indices_are_sorted=True)


def _extremes(low: Array, high: Array, axes: tuple[int, ...], one_cpu: bool) -> Any:
    """The least of one array and the largest of another."""
    if not one_cpu:
        return low.min(axes), high.max(axes)
    limits = np.iinfo(low.dtype)
    return lax.reduce(  # in one pass, several times as fast as two
        (low, high),
        (low.dtype.type(limits.max), low.dtype.type(limits.min)),
        lambda a, b: (lax.min(a[0], b[0]), lax.max(a[1], b[1])),
        axes,
    )


def _compare(bins: Integer[Array, "..."], axes: tuple[int, ...]) -> Integer[Array, "..."]:
    return (bins[..., None] == np.arange(WORDS - COUNTS)).sum(axes, dtype=np.uint32)


def _measure(values: Float[Array, "..."], fold: Whole | Packed, form: Format) -> Shaped[Array, "rows words"]:
    bits = lax.bitcast_convert_type(values, form.signed)
    magnitude = bits & np.iinfo(form.signed).max
    finite = magnitude < form.infinity
    counted = finite & fold.valid

    # As integers with the order of the values: those of negative ones are turned round.
    order = _turned(bits, form)
    limits = np.iinfo(form.signed)
    least, largest = fold.extremes(
        jnp.where(counted, order, limits.max), jnp.where(counted, order, limits.min)
    )
    bits_of_least, bits_of_largest = _turned(least, form), _turned(largest, form)
    exponent = jnp.maximum(_exponent(bits_of_least, form), _exponent(bits_of_largest, form))

    counts = fold.count(jnp.where(fold.valid, _bin(bits, magnitude, form), _PADDING))
    number = jnp.maximum(counts[:, :BINS].sum(axis=1), 1).astype(form.floating)
    scaled = jnp.where(counted, _scaled(bits, magnitude, fold.spread(exponent), form), 0)
    mean = fold.sum(scaled) / number
    deviations = fold.sum(jnp.where(counted, (scaled - fold.spread(mean)) ** 2, 0))
    sums = jnp.stack([mean, fold.sum(scaled * scaled), deviations], axis=1)
    whole = jnp.stack([bits_of_least, bits_of_largest, exponent], axis=1)
    words = [lax.bitcast_convert_type(part, form.unsigned) for part in (sums, whole)]
    return jnp.concatenate([*words, counts.astype(form.unsigned)], axis=1)


def _turned(bits: Integer[Array, "..."], form: Format) -> Integer[Array, "..."]:
    """The bits of a float as an integer with the float's order, and back again."""
    return jnp.where(bits < 0, bits ^ np.iinfo(form.signed).max, bits)


def _exponent(bits: Integer[Array, "..."], form: Format) -> Integer[Array, "..."]:
    """The exponent as it stands in the bits; subnormal numbers have that of the smallest normal ones."""
    return jnp.maximum((bits >> form.mantissa) & (2 * form.bias + 1), 1)


def _scaled(bits: Array, magnitude: Array, exponent: Array, form: Format) -> Float[Array, "..."]:
    """The values divided by two to an exponent that is no smaller than theirs: all below 2."""
    leading = jnp.where(magnitude >> form.mantissa > 0, form.signed(1 << form.mantissa), 0)
    mantissa = (magnitude & form.signed((1 << form.mantissa) - 1)) | leading
    shift = jnp.maximum(_exponent(bits, form) - exponent - form.mantissa, 1 - form.bias)
    factor = lax.bitcast_convert_type((shift + form.bias) << form.mantissa, form.floating)
    scaled = mantissa.astype(form.floating) * factor
    return jnp.where(bits < 0, -scaled, scaled)


def _bin(bits: Array, magnitude: Array, form: Format) -> Integer[Array, "..."]:
    """Which of the counts a value adds to."""
    power = (magnitude >> form.mantissa).astype(np.int32) - form.bias
    step = jnp.clip((power - SMALLEST + 2) >> 1, 0, BINS_A_SIGN - 1)
    found = BINS_A_SIGN + jnp.where(magnitude == 0, 0, jnp.where(bits < 0, -1 - step, 1 + step))
    infinite = jnp.where(bits < 0, NEGATIVE_INFINITY, POSITIVE_INFINITY) - COUNTS
    found = jnp.where(magnitude == form.infinity, infinite, found)
    return jnp.where(magnitude > form.infinity, NAN - COUNTS, found)
