"""Two arrays of one shape, value against value, as compiled code that gives back a few words."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32, Shaped

from toolshed.insight import batching, measure
from toolshed.insight.measure import Format, Packed, Whole

# The words of a row: sums of squares of the old values, the new ones and the changes, the sum of products,
# each divided by scales that follow; the largest distance and the two values there; then how many values
# differ, in how many one is not finite, and the place of the largest distance.
OLD, NEW, CHANGE, PRODUCT, SCALE_OLD, SCALE_NEW, SCALE, LARGEST, VALUE_A, VALUE_B = range(10)
DIFFERING, NONFINITE, INDEX = range(10, 13)


class Products(NamedTuple):
    """Scalar products of two arrays, over the places where both are finite.

    Attributes:
      aa, bb, ab: Σa², Σb² and Σab.
    """

    aa: float
    bb: float
    ab: float

    @property
    def cosine(self) -> float:
        """The cosine of the angle between the two; NaN where one is zero."""
        size = math.sqrt(self.aa) * math.sqrt(self.bb)
        return max(-1.0, min(1.0, self.ab / size)) if size else math.nan

    @property
    def norm_ratio(self) -> float:
        """The norm of a in units of b's; NaN where both are zero, infinite where b alone is."""
        return ratio(math.sqrt(self.aa), math.sqrt(self.bb))


def ratio(a: float, b: float) -> float:
    """``a / b`` for lengths: infinite where b alone is zero, NaN where both are."""
    return a / b if b else math.nan if not a or math.isnan(a) else math.inf


def floats(words: np.ndarray) -> list[float]:
    """Those words of a row that are numbers with a fraction: all before `DIFFERING`."""
    kind = np.float64 if words.itemsize == 8 else np.float32
    return words[:DIFFERING].view(kind).astype(np.float64).tolist()


def products(words: np.ndarray) -> Products:
    """The scalar products of a pair of arrays."""
    found = floats(words)
    a, b = found[SCALE_OLD], found[SCALE_NEW]
    return Products(found[OLD] * a * a, found[NEW] * b * b, found[PRODUCT] * a * b)


def relative_change(words: np.ndarray) -> float:
    """‖b - a‖ / ‖a‖ of a pair of arrays."""
    found = floats(words)
    return ratio(math.sqrt(found[CHANGE]) * found[SCALE], math.sqrt(found[OLD]) * found[SCALE_OLD])


def compare_arrays(
    a: Mapping[str, Any], b: Mapping[str, Any], *, rtol: float, atol: float
) -> dict[str, np.ndarray]:
    """The words of each pair. Waits for the devices, once.

    Args:
      a, b: arrays of numbers by the same names and of the same shapes, none empty and none complex.
      rtol, atol: values differ that are further apart than ``atol + rtol * |a|``.
    """
    a = {name: batching.one_copy(array) for name, array in a.items()}
    b = {name: batching.one_copy(array) for name, array in b.items()}
    places = {}
    for name, array in a.items():
        there = array if isinstance(array, jax.Array) else b[name]
        form = measure.DOUBLE if _needs_64_bits(array) or _needs_64_bits(b[name]) else measure.SINGLE
        places[name] = batching.place_of(there)._replace(form=form)

    def run() -> Iterator[tuple[list[str], jax.Array]]:
        for names, place in batching.calls({name: _either(a[name], b[name]) for name in a}, places):
            with place.entered():
                tolerances = np.array([rtol, atol], place.form.floating)
                old, new = ([_at(arrays[name], place) for name in names] for arrays in (a, b))
                yield names, _compare(old, new, place, tolerances)

    return batching.fetch(run())


def _either(a: Any, b: Any) -> Any:
    """The one of two arrays that says where the pair is compared: one on a device, if there is one."""
    return a if isinstance(a, jax.Array) else b


def _needs_64_bits(x: Any) -> bool:
    """True for values that float32 does not hold: integers of 32 bits, too."""
    return measure.format_of(x.dtype) is measure.DOUBLE or (
        jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize > 2
    )


def _at(array: Any, place: batching.Place) -> Any:
    """An array in the place where the pair is compared."""
    if place.sharding is None:
        return array
    if isinstance(array, jax.Array) and array.sharding.device_set == place.sharding.device_set:
        return array
    return jax.device_put(array, place.sharding)


def _compare(a: list[Any], b: list[Any], place: batching.Place, tolerances: np.ndarray) -> jax.Array:
    if not batching.is_small(a[0]):
        return _compare_whole(a[0], b[0], tolerances, form=place.form)
    lines = batching.lines_of(a)
    packed = [measure.pack(arrays, lines=len(lines.rows), form=place.form) for arrays in (a, b)]
    return _compare_packed(*packed, tolerances, *lines, form=place.form)


@functools.partial(jax.jit, static_argnames="form")
def _compare_whole(a: Array, b: Array, tolerances: Float[Array, "2"], *, form: Format) -> Array:
    return _words(measure.plain(a, form), measure.plain(b, form), tolerances, Whole(False), form)


@functools.partial(jax.jit, static_argnames="form")
def _compare_packed(
    a: Float[Array, "lines w"],
    b: Float[Array, "lines w"],
    tolerances: Float[Array, "2"],
    filled: Int32[Array, "lines"],
    rows: Int32[Array, "lines"],
    *,
    form: Format,
) -> Shaped[Array, "rows words"]:
    return _words(a, b, tolerances, Packed(filled, rows, False), form)


def _words(a: Array, b: Array, tolerances: Array, fold: Whole | Packed, form: Format) -> Array:
    rtol, atol = tolerances
    bits = [lax.bitcast_convert_type(x, form.signed) for x in (a, b)]
    sizes = [x & np.iinfo(form.signed).max for x in bits]
    # By their bits, because a CPU takes subnormal numbers for zero.
    same = (bits[0] == bits[1]) | ((sizes[0] | sizes[1]) == 0)
    same |= (sizes[0] > form.infinity) & (sizes[1] > form.infinity)
    finite = (sizes[0] < form.infinity) & (sizes[1] < form.infinity) & fold.valid
    tolerance = atol + rtol * jnp.abs(a)
    distance = jnp.where(finite, jnp.abs(b - a), 0)
    differ = ~(same | (finite & (tolerance > 0) & (distance <= tolerance))) & fold.valid

    concern = jnp.where(differ, jnp.where(finite, distance, jnp.inf), -1)
    positions = fold.positions(a.shape)
    worst = jnp.where(concern == fold.spread(fold.max(concern)), positions, np.iinfo(np.int32).max)
    index = fold.min(worst)
    there = (positions == fold.spread(index)) & fold.valid
    values = [fold.sum(jnp.where(there, x, 0)) for x in (a, b)]

    sums, scales = _sums(a, b, finite, fold)
    numbers = jnp.stack([*sums, *scales, fold.max(distance), *values], axis=1)
    nonfinite = fold.sum(differ & ~finite)
    counts = jnp.stack([fold.sum(differ), nonfinite, index], axis=1).astype(form.unsigned)
    return jnp.concatenate([lax.bitcast_convert_type(numbers, form.unsigned), counts], axis=1)


def _sums(a: Array, b: Array, finite: Array, fold: Whole | Packed) -> tuple[list[Array], list[Array]]:
    """The sums of squares and of products, scaled so that nothing overflows, and their scales."""
    sizes = [jnp.where(finite, jnp.abs(x), 0) for x in (a, b)]
    largest = [fold.max(size) for size in sizes]
    scales = [jnp.where(x > 0, x, 1) for x in (*largest, jnp.maximum(*largest))]
    old, new = (
        jnp.where(finite, x / fold.spread(scale), 0) for x, scale in zip((a, b), scales[:2], strict=True)
    )
    common = fold.spread(scales[2])
    change = jnp.where(finite, b / common - a / common, 0)
    return [fold.sum(x) for x in (old * old, new * new, change * change, old * new)], scales
