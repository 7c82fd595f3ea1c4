"""TrainState: everything that training changes, as one immutable value."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from penzai import pz

from toolshed import models, paths
from toolshed.errors import ModelError, StateError
from toolshed.keys import is_key
from toolshed.state import snapshot as snapshots
from toolshed.state.owner import Owner
from toolshed.structs import STATIC, struct

# fold_in(root, step) gives the keys of the steps, so these must be no step's number.
_NEXT_ROOT, _NEXT_KEY = 0xFFFF_FFFF, 0xFFFF_FFFE

# A step may leave the values that it changed as few large arrays. What holds them stands under this name in
# the state's `__dict__` and the fields do not, until one of them is read: `held.read()` gives all three.
HELD = "_held"
HELD_FIELDS = ("params", "opt_state", "model_state")


@struct(eq=False)
class TrainState(pz.Struct):
    """A model, its optimiser and their place in training.

    It is a value: a step makes a new one and leaves the old one as it was. Only a step that was built
    with ``donate=True`` takes the old one's memory. It is a pytree, so jax's tree functions,
    ``select()`` and treescope work on it.

    It does not know how to train (`toolshed.build_train_step` does) nor where it is stored.

    Attributes:
      step: number of steps done, int32[].
      root_rng: the key that each step's key is folded from, ``fold_in(root_rng, step)``. A step never
        changes it.
      params: the trainable values by path. The optimiser and the gradients have the same keys.
      model_without_params: the skeleton: the model with an empty slot for each entry of ``params`` and
        ``model_state``. Frozen parameters and constants stay in it.
      model_state: what the forward pass changes, by path: running statistics, random streams.
      opt_state: the optimiser's state.
      loss_fn_state: whatever the loss function carries from step to step, any pytree.
      metrics: metric states that merge (`toolshed.metrics.Collection`), or None.
      optimizer_def: the optax optimiser. Static.

    Example:
      >>> import jax, optax, toolshed
      >>> from penzai.models.simple_mlp import MLP
      >>> mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 8, 1])
      >>> state = toolshed.TrainState.initial_state(mlp, optax.adam(1e-3), jax.random.key(1))
      >>> sorted(state.params)[0], int(state.step)
      ('mlp/Affine_0/AddBias.bias', 0)

    References:
      The fields of penzai.deprecated.v1.toolshed.basic_training.TrainState, with the model state and
      the metrics added.
    """

    step: jax.Array
    root_rng: jax.Array
    params: dict[str, jax.Array]
    model_without_params: Any
    model_state: dict[str, jax.Array]
    opt_state: Any
    loss_fn_state: Any
    metrics: Any
    optimizer_def: optax.GradientTransformation = dataclasses.field(metadata=STATIC)

    @classmethod
    def initial_state(
        cls,
        model: Any,
        optimizer_def: optax.GradientTransformation,
        root_rng: jax.Array,
        loss_fn_state: Any = None,
        metrics: Any = None,
    ) -> TrainState:
        """The state before the first step.

        Args:
          model: a model of a library that `toolshed.models` knows. It is not changed; its arrays are
            shared with the state, not copied.
          optimizer_def: an optax optimiser, made for ``params`` as a flat dict.
          root_rng: a key that nothing else uses, not even the model's initialisation.
          loss_fn_state: the loss function's first state, any pytree.
          metrics: metrics to gather while training, or None.

        Raises:
          ModelError: the model cannot be split or has no trainable parameter, or one that no gradient
            can be taken for.
          StateError: ``optimizer_def`` or ``root_rng`` is something else.
        """
        skeleton, params, model_state = models.split(model)
        if not params:
            raise ModelError(
                f"{type(model).__name__} has no trainable parameter, so there is nothing to train."
                " Parameters with metadata {'trainable': False} and frozen values do not count."
            )
        return cls.create(
            params=params,
            model_without_params=skeleton,
            model_state=model_state,
            optimizer_def=optimizer_def,
            root_rng=root_rng,
            loss_fn_state=loss_fn_state,
            metrics=metrics,
        )

    @classmethod
    def create(
        cls,
        *,
        params: Mapping[str, Any],
        model_without_params: Any,
        optimizer_def: optax.GradientTransformation,
        root_rng: jax.Array,
        step: int | jax.Array = 0,
        model_state: Mapping[str, Any] | None = None,
        opt_state: Any = None,
        loss_fn_state: Any = None,
        metrics: Any = None,
    ) -> TrainState:
        """A state put together from its parts, as they come out of `toolshed.models.split`.

        Arguments are the fields; ``opt_state`` is initialised where it is not given.

        Raises:
          ModelError: a parameter is of a type that has no gradient.
          StateError: ``optimizer_def`` or ``root_rng`` is something else.
        """
        _check_optimizer(optimizer_def)
        check_key(root_rng)
        check_metrics(metrics)
        own = Owner(model_without_params)
        params = {path: own(f"params/{path}", value) for path, value in params.items()}
        for path, value in params.items():
            if not jnp.issubdtype(value.dtype, jnp.inexact):
                raise ModelError(
                    f"The parameter {path!r} is {paths.describe(value)}; a gradient exists for floating"
                    " point and complex values only. Declare it not trainable (metadata={'trainable':"
                    " False}) or make it a StateVariable."
                )
        return cls(
            step=own("step", jnp.asarray(step, jnp.int32)),
            root_rng=root_rng,
            params=params,
            model_without_params=model_without_params,
            model_state=own("model_state", dict(model_state or {})),
            opt_state=own("opt_state", optimizer_def.init(params) if opt_state is None else opt_state),
            loss_fn_state=own("loss_fn_state", loss_fn_state),
            metrics=metrics,
            optimizer_def=optimizer_def,
        )

    @property
    def model(self) -> Any:
        """The whole model: parameters and model state bound into the skeleton.

        Each access makes a new one with variables of its own, so calling it changes no state.

        Raises:
          StateError: the arrays of this state were donated to a step and are gone.
        """
        self.check_alive()
        return models.bind(self.model_without_params, self.params, self.model_state)

    def apply_gradients(self, grads: Mapping[str, Any], **extra_args: Any) -> TrainState:
        """The state after one optimiser update; ``step`` counts one more.

        Args:
          grads: gradients by path, as ``params`` in keys, shapes and dtypes.
          **extra_args: what the optimiser's ``update`` takes beside them (``value=loss``, say).

        Raises:
          StateError: a gradient is missing, left over or of another shape.
        """
        self.check_alive()
        self._check_grads(grads)
        params, opt_state = _apply_gradients(
            self.params, self.opt_state, dict(grads), extra_args, self.optimizer_def
        )
        return self.replace(step=self.step + 1, params=params, opt_state=opt_state)

    def next_rng(self) -> tuple[jax.Array, TrainState]:
        """A fresh key, and the state that will not give it again.

        The key differs from every key that a step uses, before or after.
        """
        key = jax.random.fold_in(self.root_rng, _NEXT_KEY)
        return key, self.replace(root_rng=jax.random.fold_in(self.root_rng, _NEXT_ROOT))

    def update_metrics(self, context: Any) -> TrainState:
        """The state whose metrics have also seen this step; the same state if there are no metrics."""
        return self if self.metrics is None else self.replace(metrics=self.metrics.update(context))

    def reset_metrics(self) -> TrainState:
        """The state with its metrics empty again."""
        return self if self.metrics is None else self.replace(metrics=self.metrics.reset())

    def compute_metrics(self) -> dict[str, Any]:
        """The metrics' values by name, floats or arrays; empty if there are none. Waits for the device."""
        return {} if self.metrics is None else self.metrics.compute()

    def replace(self, **fields: Any) -> TrainState:
        """The same state with other values in some fields.

        Raises:
          StateError: there is no field of that name.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in fields:
            if name not in known:
                close = paths.nearest(name, known, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(known)}."
                raise StateError(f"TrainState has no field {name!r}.{hint}")
        if HELD in self.__dict__ and fields.keys().isdisjoint(HELD_FIELDS):
            return with_fields({**self.__dict__, **fields})
        return dataclasses.replace(self, **fields)

    def to_snapshot(self) -> dict[str, Any]:
        """The state as nested dicts of numpy arrays and scalars; waits for the device.

        Schema ``toolshed.train_state/1``; see `toolshed.state.snapshot`.
        """
        self.check_alive()
        return snapshots.to_snapshot(self)

    @classmethod
    def from_snapshot(cls, snapshot: Mapping[str, Any], *, like: TrainState) -> TrainState:
        """The state that `to_snapshot` was called on.

        Args:
          snapshot: as `to_snapshot` gave it.
          like: a freshly made state with the same model and optimiser, which gives structure, skeleton,
            optimiser and the devices to place arrays on. Its values do not matter.

        Raises:
          SnapshotError: the schema is unknown or leaves differ; each is named.
        """
        return snapshots.from_snapshot(snapshot, like)

    def save(self, repository: Any, **options: Any) -> Any:
        """Saves this state; the same as ``repository.save(state, **options)``.

        Args:
          repository: a `toolshed.checkpoints.Repository`.
          **options: tags, metadata and so on; see `toolshed.checkpoints.Repository.save`.
        """
        return repository.save(self, **options)

    @classmethod
    def load(cls, repository: Any, *, like: TrainState, step: Any = "latest", **options: Any) -> TrainState:
        """A state that was saved; the same as ``repository.load(step, like=like, **options)``.

        Args:
          repository: a `toolshed.checkpoints.Repository`.
          like: a freshly made state with the same model and optimiser.
          step: a step, ``"latest"``, ``"best"`` or a tag.
          **options: see `toolshed.checkpoints.Repository.load`.
        """
        return repository.load(step, like=like, **options)

    def treescope_color(self) -> str:
        """The colour of a TrainState in treescope, a quiet teal."""
        return "#7fb3a6"

    def __treescope_repr__(self, path: Any, subtree_renderer: Any) -> Any:
        return NotImplemented  # toolshed.views draws it

    if not TYPE_CHECKING:  # a type checker would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            held = self.__dict__.get(HELD) if name in HELD_FIELDS else None
            if held is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.__dict__.update(held.read())
            return self.__dict__[name]

    def __getstate__(self) -> dict[str, Any]:
        return self.attributes_dict()  # a copy, or a pickle, has the arrays

    def check_alive(self) -> None:
        """Raises `StateError` if this state's arrays were donated to a step and are gone."""
        for name in ("params", "opt_state", "model_state", "step"):
            leaves = paths.flatten(getattr(self, name)).items()
            gone = [path for path, value in leaves if _is_deleted(value)]
            if gone:
                path = f"{name}/{gone[0]}" if gone[0] else name
                raise gone_error(path)

    def _check_grads(self, grads: Mapping[str, Any]) -> None:
        if not isinstance(grads, Mapping):
            raise StateError(f"Expected gradients as a dict by path, got {type(grads).__name__}.")
        for path in [*self.params, *grads]:
            if path not in grads or path not in self.params:
                where = "has no gradient" if path in self.params else "is no parameter of this state"
                near = paths.nearest(path, grads if path in self.params else self.params, n=1)
                hint = f" The nearest name there is {near[0]!r}." if near else ""
                raise StateError(f"{path!r} {where}.{hint}")
            came, expected = getattr(grads[path], "shape", None), self.params[path].shape
            if came is None:
                raise StateError(f"The gradient of {path!r} is {paths.describe(grads[path])}, no array.")
            if came != expected:
                raise StateError(f"The gradient of {path!r} has shape {came}, expected {expected}.")


@functools.partial(jax.jit, static_argnums=4)
def _apply_gradients(
    params: Any, opt_state: Any, grads: Any, extra_args: Any, optimizer_def: optax.GradientTransformation
) -> tuple[Any, Any]:
    optimizer = optax.with_extra_args_support(optimizer_def)
    updates, opt_state = optimizer.update(grads, opt_state, params, **extra_args)
    return optax.apply_updates(params, updates), opt_state


def with_fields(fields: dict[str, Any]) -> TrainState:
    """A state of these values, as fast as it can be made; the dict becomes the state's own.

    What is held stands there instead of the fields that it has.
    """
    state = object.__new__(TrainState)
    object.__setattr__(state, "__dict__", fields)
    return state


def gone_error(path: str) -> StateError:
    """What is wrong with a state whose array at ``path`` was given away."""
    return StateError(
        f"The arrays of this state are gone ({path} is deleted): it was given to a step that donates. Use the"
        " state that the step returned, or build the step without donate=True."
    )


def _is_deleted(value: Any) -> bool:
    return isinstance(value, jax.Array) and not isinstance(value, Tracer) and value.is_deleted()


def _check_optimizer(optimizer: Any) -> None:
    if not (callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))):
        hint = " Call it first: optax.adam(1e-3)." if callable(optimizer) else ""
        raise StateError(
            "Expected an optax optimiser with init and update, got"
            f" {getattr(optimizer, '__name__', type(optimizer).__name__)}.{hint}"
        )


def check_metrics(metrics: Any) -> None:
    """Raises `StateError` if these are neither metrics that merge nor None."""
    if metrics is not None and not hasattr(metrics, "merge_states"):
        raise StateError(
            f"Expected metrics made by toolshed.metrics.collection(name=metric, …), or None; got"
            f" {paths.describe(metrics)}."
        )


def check_key(key: Any) -> None:
    """Raises `StateError` if this is not one random key."""
    typed = is_key(key)
    raw = hasattr(key, "dtype") and key.dtype == jnp.uint32 and getattr(key, "ndim", 0) == 1
    if not ((typed and key.ndim == 0) or raw):
        raise StateError(
            f"Expected one random key as root_rng, got {paths.describe(key)}. Use jax.random.key(seed)."
        )
