"""The loss of one batch as a function of the parameters alone: what slopes and curvatures are taken of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from toolshed import loss_function, paths
from toolshed.errors import StateError
from toolshed.gradients import GradientStrategy
from toolshed.insight.sources import loss_and_strategy
from toolshed.keys import key_unpacker, raw_key
from toolshed.state import TrainState
from toolshed.training.program import Skeleton


class _Model:
    """A skeleton and a loss function: what is the same for all values, compared by what they compute."""

    def __init__(self, skeleton: Skeleton, loss_fn: Callable[..., Any], key: jax.Array):
        self.skeleton, self.loss_fn = skeleton, loss_fn
        self.wrap_key = key_unpacker(key)
        self._identity = (skeleton.identity, loss_fn, str(key.dtype))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Model) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True)
class Objective:
    """The loss of a batch as a function of the parameters, ``loss = objective(params)``.

    It is a pytree of the arrays that it needs, so that it can be an argument of a compiled function, which
    is compiled once for all states of a model and all batches of a shape. Made by `objective`.

    Attributes:
      batch: entries by name.
      key: the random bits of the step's key, so that dropout is the same at each call.
    """

    _model: _Model
    _constants: Any
    _carry: Any
    _step: Any
    batch: Mapping[str, Any]
    key: Any

    def __call__(self, params: Mapping[str, Any]) -> jax.Array:
        """The loss at some parameters, float32[]."""
        return self.of_params(params, *self.arguments)[0]

    @property
    def arguments(self) -> tuple[Any, Any, jax.Array]:
        """What `of_params` takes beside the parameters: what is carried, the batch, and the step's key."""
        return self._carry, self.batch, self.rng

    def of_params(self, params: Any, carry: Any, batch: Any, rng: Any) -> tuple[jax.Array, tuple[Any, Any]]:
        """The loss of a batch as gradient strategies take it; see `toolshed.gradients.LossOfParams`."""
        model_state, loss_fn_state = carry
        bound = self._model.skeleton.bind(self._constants, params, model_state)
        loss, loss_fn_state, aux = loss_function.call(
            self._model.loss_fn,
            model=bound.model,
            state=loss_fn_state,
            rng=rng,
            batch=batch,
            step=self._step,
            params=params,
        )
        return loss, ((bound.read_model_state(), loss_fn_state), aux)

    def gradients(self, strategy: GradientStrategy, params: Any, batch: Any, rng: Any) -> Any:
        """The gradients of a batch by path, as a strategy finds them."""
        return strategy(self.of_params, params, self._carry, batch, rng)[2]

    @property
    def rng(self) -> jax.Array:
        """The step's key."""
        return self._model.wrap_key(self.key)

    def tree_flatten(self) -> tuple[tuple[Any, ...], _Model]:
        """The arrays as jax children."""
        return (self._constants, self._carry, self._step, self.batch, self.key), self._model

    @classmethod
    def tree_unflatten(cls, model: _Model, children: tuple[Any, ...]) -> Objective:
        """The inverse of `tree_flatten`."""
        return cls(model, *children)


def objective(source: Any, state: TrainState, batch: Mapping[str, Any]) -> Objective:
    """The loss of a batch as a function of the parameters, in all else as the state's next step sees it.

    Args:
      source: a loss function (see `toolshed.LossFunction`), or the `toolshed.TrainStep` or
        `toolshed.Trainer` that has it.
      state: gives the model, the model's state and the key.
      batch: entries by name.

    Raises:
      StateError: ``state`` is no state, or its arrays were donated.
      BatchError: the batch does not fit the loss function.
      ToolshedError: ``source`` has no loss function.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x):
      ...     preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      ...     return (preds**2).mean(), state, {}
      >>> mlp = MLP.from_config(jax.random.key(0), [2, 1])
      >>> state = toolshed.TrainState.initial_state(mlp, optax.sgd(0.1), jax.random.key(1))
      >>> loss = toolshed.insight.objective(loss_fn, state, {"x": jnp.zeros((4, 2))})
      >>> float(loss(state.params))
      0.0
    """
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.")
    state.check_alive()
    loss_fn, _ = loss_and_strategy(source)
    loss_function.check_batch(loss_fn, batch)
    skeleton = Skeleton(state.model_without_params)
    key = jax.random.fold_in(state.root_rng, state.step)
    return Objective(
        _Model(skeleton, loss_fn, key),
        skeleton.constants,
        (state.model_state, state.loss_fn_state),
        state.step,
        dict(batch),
        raw_key(key),
    )
