"""Metrics as values: a small state per batch that merges with any other.

Merging two states equals computing over both their batches at once, in any order. An empty metric is
NaN, never 0.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.batches import over_later_axes
from toolshed.errors import FieldNotFilled, ToolshedError
from toolshed.metrics import sums
from toolshed.paths import describe

AUTO = "auto"
"""The mask of a metric that names none: ``batch/mask``, where the batch has one and it applies.

It applies to what there is one of for each example: values that are no scalars, at paths in ``batch``,
``preds``, ``aux`` and ``interms``.
"""
_BY_EXAMPLE = ("batch", "preds", "aux", "interms")


@runtime_checkable
class Metric(Protocol):
    """What a metric is; implementations are frozen dataclasses whose fields are Context paths.

    All four are pure functions of arrays: jax compiles them. A metric that can hold only so many
    examples also has ``capacity: int`` and ``seen(state)``, the number of examples that came. One whose
    value is a vector of scalars with names of their own also has ``names: tuple[str, ...]``.
    """

    def empty(self) -> Any:
        """The state of no example at all: a pytree of arrays."""
        ...

    def state_from(self, context: Any) -> Any:
        """The state of one step. Pure; runs inside the compiled step."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """The state of both together."""
        ...

    def compute(self, state: Any) -> Any:
        """The value of a state: a scalar or an array."""
        ...


def array(context: Any, path: str) -> jax.Array:
    """The array at a path, with positional axes whose order means something.

    A named array whose one name is ``batch`` has that axis first. Other names have no order that a
    metric could know.

    Raises:
      ToolshedError: there is no array of numbers, or its axes have names that give no order.
    """
    value = context[path]
    named = getattr(value, "named_shape", None)
    if named is None:
        return _numbers(value, path)
    if set(named) - {"batch"}:
        names = ", ".join(map(repr, named))
        raise ToolshedError(
            f"{path} is {describe(value)}, with named axes; a metric needs to know their order. Give them"
            f" one where the value is made: value.untag({names}).unwrap()."
        )
    return value.untag_prefix(*named).unwrap()


def unordered(value: Any, path: str) -> jax.Array:
    """A value as an array where the order of axes makes no difference."""
    if hasattr(value, "named_shape"):
        value = value.untag_prefix(*value.named_shape).unwrap()
    return _numbers(value, path)


def _numbers(value: Any, path: str) -> jax.Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError):
        raise ToolshedError(f"{path} is {describe(value)}; expected an array of numbers.") from None


def counted(
    context: Any,
    mask: str | None,
    path: str,
    values: jax.Array,
    *,
    axes: int | None = None,
    label: str | None = None,
) -> Any:
    """What of some values counts.

    Args:
      context: where the mask is.
      mask: the mask's path, None, or `AUTO`.
      path: where the values are; for the message of an error and for `AUTO`.
      values: what is masked.
      axes: the mask's largest number of axes; None for those of the values.
      label: what an error calls the values, if not by their path.

    Returns:
      bool in the shape of the values' first axes (all, or as many as ``axes`` says).

    Raises:
      ToolshedError: the mask's axes are not the first axes of the values.
    """
    shape = values.shape[:axes]
    at = _mask_path(context, mask, path, values)
    if at is None:
        return jnp.ones(shape, bool)
    given = array(context, at)
    return _lined_up(given, at, "mask", values, label or path, shape) != 0


def weights_of(context: Any, weights: str | None, path: str, values: jax.Array) -> jax.Array | None:
    """Weights in the shape of the values, float32, or None if there is no path to any."""
    if weights is None:
        return None
    given = array(context, weights)
    return _lined_up(given, weights, "weights", values, path, values.shape).astype(jnp.float32)


def _lined_up(
    given: jax.Array, at: str, what: str, values: jax.Array, path: str, shape: tuple[int, ...]
) -> jax.Array:
    """A mask or weights in the shape of what they belong to, or an error if it is not of its first axes."""
    lined_up = over_later_axes(given, shape)
    if lined_up is not None:
        return lined_up
    hint = " Pass mask=None to count all." if what == "mask" else ""
    up_to = f" at most {len(shape)} of" if len(shape) < values.ndim else ""
    raise ToolshedError(
        f"The {what} {at} is {describe(given)} and {path} is {describe(values)}; expected a {what} with"
        f"{up_to} the first axes of what it is for, with the same sizes: nothing is broadcast.{hint}"
    )


def check_same_shape(a: jax.Array, a_path: str, b: jax.Array, b_path: str) -> None:
    """Raises unless two arrays have one shape: ``[n, 1]`` against ``[n]`` would give ``[n, n]``."""
    if a.shape != b.shape:
        raise ToolshedError(
            f"{a_path} is {describe(a)} and {b_path} is {describe(b)}; expected the same shape. Nothing is"
            " broadcast: reshape one where it is made."
        )


def check_classes(scores: jax.Array, scores_path: str, targets: jax.Array, targets_path: str) -> None:
    """Raises unless scores have one more axis than targets, over classes."""
    if scores.shape[:-1] != targets.shape or scores.ndim == 0:
        raise ToolshedError(
            f"{scores_path} is {describe(scores)}, {targets_path} is {describe(targets)}; expected"
            " predictions with one more axis than the targets, the last one over classes."
        )


def is_by_example(path: str) -> bool:
    """True for a path into what there is one of for each example of a batch."""
    return path.split("/", 1)[0] in _BY_EXAMPLE


def _mask_path(context: Any, mask: str | None, path: str, values: jax.Array) -> str | None:
    if mask != AUTO:
        return mask
    if values.ndim == 0 or not is_by_example(path):
        return None
    try:
        context["batch/mask"]
    except (KeyError, FieldNotFilled):
        return None
    return "batch/mask"


class Averaged:
    """What metrics share that are a total over a count: float32[2, 2], pairs of both."""

    def empty(self) -> Float32[Array, "2 2"]:
        return sums.zeros(2)

    def merge(self, a: Float32[Array, "2 2"], b: Float32[Array, "2 2"]) -> Float32[Array, "2 2"]:
        return sums.add(a, b)

    def compute(self, state: Float32[Array, "2 2"]) -> Float32[Array, ""]:
        total, count = sums.value(state)
        return sums.ratio(total, count)


def averaged(values: Any, mask: Any, weights: Any = None) -> Float32[Array, "2 2"]:
    """The state of an `Averaged`: the values that count, times their weights, over number or weight.

    A value or a weight that does not count may be anything, NaN included.

    Args:
      values: any shape.
      mask: bool in that shape.
      weights: float32 in that shape, or None.
    """
    if values.dtype == bool and weights is None:  # exact, and quicker
        return sums.pack(sums.count(values & mask), sums.count(mask))
    values = jnp.asarray(values, jnp.float32)
    if weights is None:
        return sums.pack(sums.total(jnp.where(mask, values, 0)), sums.count(mask))
    weights = jnp.where(mask, weights, 0)
    return sums.pack(sums.total(jnp.where(mask, values * weights, 0)), sums.total(weights))
