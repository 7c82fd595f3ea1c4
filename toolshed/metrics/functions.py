"""Any function of Context paths as a metric, and functions of each leaf of a tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.metric import AUTO, Averaged, array, averaged, counted, is_by_example, unordered


@dataclasses.dataclass(frozen=True, init=False)
class Function(Averaged):
    """The mean of any function of values at Context paths.

    Attributes:
      fn: takes an array for each path; returns a value for each example, float[batch, ...], or a scalar,
        which counts once a step. Pure; runs inside the compiled step.
      paths: the Context paths.
      mask: what counts of the function's values; see `toolshed.metrics.Mean`. `AUTO` masks values by
        example of which any path is by example.

    Example:
      >>> import jax.numpy as jnp
      >>> from toolshed.metrics import Function
      >>> within = Function(lambda p, y: jnp.abs(p - y) < 0.1, "preds", "batch/y")
      >>> state = within.state_from({"preds": jnp.array([1.0, 2.0]), "batch/y": jnp.array([1.05, 3.0])})
      >>> float(within.compute(state))
      0.5
    """

    fn: Callable[..., Any]
    paths: tuple[str, ...]
    mask: str | None = AUTO

    def __init__(self, fn: Callable[..., Any], *paths: str, mask: str | None = AUTO):
        if not callable(fn) or not paths or not all(isinstance(path, str) for path in paths):
            raise ToolshedError(
                "Expected a function and the Context paths of its arguments: Function(fn, 'preds',"
                " 'batch/y')."
            )
        for name, value in (("fn", fn), ("paths", paths), ("mask", mask)):
            object.__setattr__(self, name, value)

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        values = jnp.asarray(self.fn(*(array(context, path) for path in self.paths)))
        name = next(filter(is_by_example, self.paths), self.paths[0])
        label = f"{name} after {getattr(self.fn, '__name__', 'fn')}"
        return averaged(values, counted(context, self.mask, name, values, label=label))


@dataclasses.dataclass(frozen=True)
class Mapped:
    """A function of each leaf of a tree, averaged over steps.

    Attributes:
      fn: takes one leaf as an array, returns a scalar. The order of its axes is the leaf's own; those
        with names come first. Pure; runs inside the compiled step.
      path: a Context path with globs (``grads/**``), or one of a tree or a leaf.
      reduce: makes one scalar of the leaves' values, float32[leaves]: ``jnp.max``, ``jnp.mean``, … None
        keeps each by its path; ``leaves`` must then name them.
      leaves: for ``reduce=None``, the full paths of all leaves there are, for the size of the state:
        ``[f"grads/{path}" for path in state.params]``.

    Example:
      >>> import jax.numpy as jnp
      >>> from toolshed.metrics import Mapped
      >>> largest = Mapped(lambda leaf: jnp.abs(leaf).max(), "grads/**", reduce=jnp.max)
    """

    fn: Callable[[Any], Any]
    path: str
    _: dataclasses.KW_ONLY
    reduce: Callable[[Any], Any] | None = jnp.mean
    leaves: Iterable[str] = ()

    def __post_init__(self):
        object.__setattr__(self, "leaves", tuple(self.leaves))
        if self.reduce is None and not self.leaves:
            raise ToolshedError(
                f"A value for each leaf of {self.path!r} needs their paths for the size of its state:"
                " leaves=[f'grads/{path}' for path in state.params], or reduce=jnp.mean for one value."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """What the entries of the value are called, where it is one for each leaf."""
        return tuple(self.leaves) if self.reduce is None else ()

    def empty(self) -> Float32[Array, "2 n"]:
        return sums.zeros(1 + (len(self.names) or 1))

    def state_from(self, context: Any) -> Float32[Array, "2 n"]:
        found = self._leaves_at(context)
        values = {path: self._value(leaf, path) for path, leaf in found.items()}
        one = jnp.ones(1, jnp.float32)
        if self.reduce is not None:
            reduced = jnp.asarray(self.reduce(jnp.stack(list(values.values()))), jnp.float32)
            if reduced.shape:
                raise ToolshedError(
                    f"reduce gave {paths.describe(reduced)} for {self.path!r}; expected a scalar."
                )
            return sums.exact(jnp.concatenate([one, reduced[None]]))
        if set(values) != set(self.leaves):
            wrong = sorted(set(values) ^ set(self.leaves))
            where = "found but not in leaves" if wrong[0] in values else "in leaves but not found"
            raise ToolshedError(
                f"{self.path!r} matches {len(values)} leaves and leaves= names {len(tuple(self.leaves))}:"
                f" {wrong[0]!r} is {where}. Name each matching leaf by its full path."
            )
        return sums.exact(jnp.concatenate([one, jnp.stack([values[path] for path in self.leaves])]))

    def merge(self, a: Float32[Array, "2 n"], b: Float32[Array, "2 n"]) -> Float32[Array, "2 n"]:
        return sums.add(a, b)

    def compute(self, state: Float32[Array, "2 n"]) -> Float32[Array, "..."]:
        values = sums.value(state)
        means = sums.ratio(values[1:], values[0])
        return means[0] if self.reduce is not None else means

    def _leaves_at(self, context: Any) -> dict[str, Any]:
        found = context[self.path]
        if paths.is_pattern(self.path):
            return found
        return {
            f"{self.path}/{path}" if path else self.path: leaf for path, leaf in paths.flatten(found).items()
        }

    def _value(self, leaf: Any, path: str) -> jax.Array:
        # Without the barrier XLA may compute a gradient once for the optimiser and once for this.
        array = jax.lax.optimization_barrier(unordered(leaf, path))
        value = jnp.asarray(self.fn(array), jnp.float32)
        if value.shape:
            raise ToolshedError(f"The function gave {paths.describe(value)} for {path}; expected a scalar.")
        return value


def Norm(path: str, *, per_leaf: bool = False, leaves: Iterable[str] = ()) -> Mapped:  # noqa: N802
    """The Euclidean norm of all values at a path, averaged over steps.

    Args:
      path: a Context path with globs (``grads/**``), or one of a tree or a leaf.
      per_leaf: the norm of each leaf by its path, rather than of all together.
      leaves: for ``per_leaf``, the full paths of the leaves; see `Mapped`.

    Example:
      >>> from toolshed.metrics import Norm, collection
      >>> metrics = collection(
      ...     norm=Norm("grads/**"),
      ...     by_leaf=Norm("grads/**", per_leaf=True, leaves=["grads/weights", "grads/bias"]),
      ... )
    """
    if per_leaf:
        return Mapped(_norm, path, reduce=None, leaves=leaves)
    return Mapped(_sum_of_squares, path, reduce=_root_of_sum)


def _sum_of_squares(leaf: Any) -> Any:
    leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jnp.vdot(leaf, leaf, precision=jax.lax.Precision.HIGHEST).real


def _norm(leaf: Any) -> Any:
    return jnp.sqrt(_sum_of_squares(leaf))


def _root_of_sum(squares: Any) -> Any:
    return jnp.sqrt(squares.sum())
