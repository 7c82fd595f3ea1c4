"""Two gradient strategies side by side: how far their gradients agree."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from toolshed import loss_function, models, paths
from toolshed.errors import StateError
from toolshed.gradients.strategy import GradientStrategy
from toolshed.state import TrainState


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the gradients of a strategy ``a`` lie to those of ``b``; see `compare`.

    Attributes:
      cosine: the cosine of the angle between the two gradients by parameter path: 1 for the same
        direction, 0 for perpendicular, -1 for opposite. NaN where one of them is zero.
      norm_ratio: the L2 norm of a's gradient in units of b's by parameter path. NaN where both are zero,
        infinite where b's alone is.
      cosine_of_all: the cosine over all parameters together.
      norm_ratio_of_all: the ratio of the norms over all parameters together.
      title: what was compared, in words.
    """

    cosine: Mapping[str, float]
    norm_ratio: Mapping[str, float]
    cosine_of_all: float
    norm_ratio_of_all: float
    title: str = "a to b"

    def flatten(self) -> dict[str, float]:
        """All numbers by path: ``cosine``, ``norm_ratio``, ``cosine/…`` and ``norm_ratio/…``."""
        return {
            "cosine": self.cosine_of_all,
            "norm_ratio": self.norm_ratio_of_all,
            **{f"cosine/{path}": value for path, value in self.cosine.items()},
            **{f"norm_ratio/{path}": value for path, value in self.norm_ratio.items()},
        }

    def __repr__(self) -> str:
        width = max(map(len, [*self.cosine, "all parameters"]))
        rows = [(path, self.cosine[path], self.norm_ratio[path]) for path in self.cosine]
        rows += [("all parameters", self.cosine_of_all, self.norm_ratio_of_all)]
        lines = [f"{path:{width}}  {cosine:7.4f}  {ratio:10.4g}" for path, cosine, ratio in rows]
        head = f"{'':{width}}  {'cosine':>7}  {'norm ratio':>10}"
        return "\n".join([f"Gradients of {self.title}", head, *lines])


def compare(
    a: GradientStrategy,
    b: GradientStrategy,
    loss_fn: Callable[..., Any],
    state: TrainState,
    batch: Mapping[str, Any],
    *,
    rng: jax.Array | None = None,
) -> Comparison:
    """Takes the gradients of one batch with two strategies and compares them. Changes nothing.

    Compiled once for each pair of strategies, loss function and shapes. Waits for the device.

    Args:
      a: the strategy to look at.
      b: the one to measure it by, `backprop` say.
      loss_fn: see `toolshed.LossFunction`.
      state: where the gradients are taken.
      batch: entries by name.
      rng: the key for both; by default that of the state's next step.

    Raises:
      StateError: ``state`` is no state, or its arrays were donated.
      BatchError: the batch is not by the names that the loss function takes.
      LossError: the loss function broke its protocol.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x, y):
      ...     preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      ...     return jnp.mean((preds - y) ** 2), state, {}
      >>> mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 1])
      >>> state = toolshed.TrainState.initial_state(mlp, optax.sgd(0.1), jax.random.key(1))
      >>> batch = {"x": jnp.eye(2), "y": jnp.ones((2, 1))}
      >>> clipped, exact = toolshed.gradients.PerExample(clip=1e-3), toolshed.gradients.backprop
      >>> toolshed.gradients.compare(exact, exact, loss_fn, state, batch).norm_ratio_of_all
      1.0
      >>> toolshed.gradients.compare(clipped, exact, loss_fn, state, batch).norm_ratio_of_all < 0.01
      True
    """
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()
    loss_function.check_batch(loss_fn, batch)
    skeleton = state.model_without_params
    leaves, treedef = jax.tree.flatten(skeleton)
    arrays = [leaf if paths.is_arraylike(leaf) else None for leaf in leaves]
    constants = tuple(None if paths.is_arraylike(leaf) else (type(leaf), leaf) for leaf in leaves)
    key = jax.random.fold_in(state.root_rng, state.step) if rng is None else rng
    carry = (state.model_state, state.loss_fn_state)
    measured = _measure(
        a, b, loss_fn, treedef, constants, arrays, state.params, carry, dict(batch), key, state.step
    )
    leaf_wise, of_all = jax.device_get(measured)
    return Comparison(
        cosine={path: float(leaf_wise[path][0]) for path in state.params},
        norm_ratio={path: float(leaf_wise[path][1]) for path in state.params},
        cosine_of_all=float(of_all[0]),
        norm_ratio_of_all=float(of_all[1]),
        title=f"{_name(a)} to those of {_name(b)}",
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _measure(
    a: GradientStrategy,
    b: GradientStrategy,
    loss_fn: Callable[..., Any],
    treedef: Any,
    constants: tuple[Any, ...],
    arrays: list[Any],
    params: Any,
    carry: Any,
    batch: Any,
    rng: jax.Array,
    step: jax.Array,
) -> Any:
    """(cosine, norm ratio) by path, and over all. The model without its values comes in parts."""
    pairs = zip(arrays, constants, strict=True)
    skeleton = treedef.unflatten([array if constant is None else constant[1] for array, constant in pairs])
    library = models.adapter_of(skeleton)

    def loss_of(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        model_state, loss_fn_state = carry
        bound = library.bind(skeleton, params, model_state, frozen=True)
        loss, loss_fn_state, aux = loss_function.call(
            loss_fn,
            model=bound.model,
            state=loss_fn_state,
            rng=rng,
            batch=batch,
            step=step,
            params=params,
        )
        return loss, ((bound.read_model_state(), loss_fn_state), aux)

    grads_a, grads_b = (strategy(loss_of, params, carry, batch, rng)[2] for strategy in (a, b))
    of_leaves = {path: _angle([grads_a[path]], [grads_b[path]]) for path in params}
    return of_leaves, _angle([grads_a[path] for path in params], [grads_b[path] for path in params])


def _angle(a: list[Any], b: list[Any]) -> tuple[jax.Array, jax.Array]:
    """Cosine of the angle between two vectors given in pieces, and the ratio of their norms."""
    (unit_a, norm_a), (unit_b, norm_b) = _unit(a), _unit(b)
    cosine = sum(jnp.vdot(x, y).real for x, y in zip(unit_a, unit_b, strict=True))
    return jnp.where((norm_a > 0) & (norm_b > 0), jnp.clip(cosine, -1, 1), jnp.nan), norm_a / norm_b


def _unit(pieces: list[Any]) -> tuple[list[Any], jax.Array]:
    """A vector at length 1, and its length. Scaled first, so that no square is out of range."""
    wide = [piece.astype(jnp.promote_types(piece.dtype, jnp.float32)) for piece in pieces]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(piece), initial=0) for piece in wide]))
    scale = jnp.where(largest > 0, largest, 1)
    scaled = [piece / scale for piece in wide]
    norm = jnp.sqrt(sum(jnp.sum(jnp.abs(piece) ** 2) for piece in scaled))
    return [piece / jnp.where(norm > 0, norm, 1) for piece in scaled], norm * scale


def _name(strategy: GradientStrategy) -> str:
    return getattr(strategy, "__name__", None) or repr(strategy)
