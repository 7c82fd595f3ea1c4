"""What one training step computes: the function that jax traces and compiles.

Only flat dicts and tuples of arrays cross its boundary. The model is put together from its skeleton
while tracing and never again, so its size in Python objects costs nothing per step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from toolshed import loss_function
from toolshed.errors import BatchError
from toolshed.gradients import GradientStrategy
from toolshed.keys import key_unpacker, raw_key
from toolshed.models import adapter_of
from toolshed.paths import describe, flatten
from toolshed.state import TrainState
from toolshed.training import tape
from toolshed.training.carried import Carried
from toolshed.training.context import FROM_AUX, Context
from toolshed.training.tape import Scalar


class Skeleton:
    """A model without its values, flattened once.

    Arrays among its leaves are given to the compiled step as arguments, so that large frozen weights
    are not baked into the program; other leaves (a dropout rate) are constants of the program.

    Attributes:
      constants: the arrays, keys as their raw data.
      identity: what must be equal for two skeletons to share a compiled step.
    """

    def __init__(self, tree: Any):
        leaves, self._treedef = jax.tree.flatten(tree)
        self._library = adapter_of(tree)
        self._is_array = tuple(isinstance(leaf, jax.Array) or hasattr(leaf, "__array__") for leaf in leaves)
        arrays = [leaf for leaf, is_array in zip(leaves, self._is_array, strict=True) if is_array]
        self._unpack = tuple(key_unpacker(leaf) for leaf in arrays)
        self.constants = tuple(raw_key(leaf) for leaf in arrays)
        self._static = tuple(
            None if is_array else leaf for leaf, is_array in zip(leaves, self._is_array, strict=True)
        )
        kinds = tuple(str(getattr(leaf, "dtype", "")) for leaf in arrays)
        self.identity = (self._treedef, self._is_array, kinds, tuple((type(x), x) for x in self._static))

    def bind(self, constants: tuple[Any, ...], params: Any, model_state: Any) -> Any:
        """The model with values, as a `toolshed.models.Bound`; called while tracing."""
        arrays = iter([unpack(x) for unpack, x in zip(self._unpack, constants, strict=True)])
        leaves = [next(arrays) if a else x for a, x in zip(self._is_array, self._static, strict=True)]
        tree = self._treedef.unflatten(leaves)
        return self._library.bind(tree, params, model_state, frozen=True)


class Computation:
    """One training step on traced values.

    Args:
      state: any state with the optimiser and kind of metrics that the step is for.
      skeleton: its model without values.
      loss_fn: the loss function.
      gradient_strategy: how gradients are found.
      outputs: Context fields to return from the compiled step.
      record: the scalars that go on the tape: Context paths, or functions.
      steps_per_call: how many steps one call makes, each on its slice of the batch.
      check_finite: whether to return which gradients are finite.

    Attributes:
      outputs: the same.
    """

    def __init__(
        self,
        state: TrainState,
        skeleton: Skeleton,
        *,
        loss_fn: Callable[..., Any],
        gradient_strategy: GradientStrategy,
        outputs: tuple[str, ...],
        record: tuple[str | Scalar, ...],
        steps_per_call: int,
        check_finite: bool,
    ):
        self._skeleton = skeleton
        self._wrap_key = key_unpacker(state.root_rng)
        self._optimizer = optax.with_extra_args_support(state.optimizer_def)
        self._metrics = state.metrics
        self._loss_fn = loss_fn
        self._gradients = gradient_strategy
        self.outputs = outputs
        self._record = record
        self._steps = steps_per_call
        self._check_finite = check_finite

    def __call__(
        self,
        params: Any,
        opt_state: Any,
        model_state: Any,
        rest: tuple[jax.Array, Any, Any],
        constants: tuple[Any, ...],
        key: jax.Array,
        batch: Any,
        block: jax.Array | None,
    ) -> tuple[tuple[Any, ...], dict[str, Any], jax.Array | None]:
        """The state after the call, the requested Context fields, and the tape's block.

        The state comes as a plain `tuple` of what `Carried` names, which jax puts together faster.
        """
        loss_function.check_batch(self._loss_fn, batch)
        before = Carried(params, opt_state, model_state, rest)
        taped = self._record if block is not None else ()
        if self._steps == 1:
            after, fields, scalars = self._one(before, constants, key, batch, taped)
            steps, scalars = rest[0][None], [scalar[None] for scalar in scalars]
        else:
            self._check_stacked(batch)

            def body(carried: Any, one_batch: Any) -> Any:
                after, fields, scalars = self._one(carried, constants, key, one_batch, taped)
                return after, (fields, scalars)

            after, (fields, scalars) = jax.lax.scan(body, before, batch, length=self._steps)
            steps = rest[0] + jnp.arange(self._steps, dtype=jnp.int32)
        return tuple(after), fields, None if block is None else tape.write_rows(block, steps, scalars)

    def fields(
        self,
        params: Any,
        opt_state: Any,
        model_state: Any,
        rest: tuple[jax.Array, Any, Any],
        constants: tuple[Any, ...],
        key: jax.Array,
        batch: Any,
    ) -> dict[str, Any]:
        """The requested Context fields alone; what only the next state needs is never computed."""
        return self(params, opt_state, model_state, rest, constants, key, batch, None)[1]

    def _one(
        self, before: Carried, constants: Any, key: Any, batch: Any, taped: tuple[str | Scalar, ...]
    ) -> tuple[Carried, dict[str, Any], list[jax.Array]]:
        """One step: the state after it, the selected fields, and the scalars for the tape."""
        step, loss_fn_state, metric_states = before.rest
        rng = jax.random.fold_in(self._wrap_key(key), step)

        def loss_of(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
            model_state, loss_fn_state = carry
            bound = self._skeleton.bind(constants, params, model_state)
            loss, loss_fn_state, aux = loss_function.call(
                self._loss_fn,
                model=bound.model,
                state=loss_fn_state,
                rng=rng,
                batch=batch,
                step=step,
                params=params,
            )
            return loss, ((bound.read_model_state(), loss_fn_state), aux)

        carry = (before.model_state, loss_fn_state)
        loss, ((model_state, loss_fn_state), aux), grads = self._gradients(
            loss_of, before.params, carry, batch, rng
        )
        updates, opt_state = self._optimizer.update(
            grads,
            before.opt_state,
            before.params,
            value=loss,  # these three for optimisers that look at the loss: line searches, plateaus
            grad=grads,
            value_fn=lambda params: loss_of(params, carry, batch, rng)[0],
        )
        params: Any = optax.apply_updates(before.params, updates)

        fields: dict[str, Any] = {
            "step": step,
            "batch": batch,
            "params": before.params,
            "model_state": before.model_state,
            "opt_state": before.opt_state,
            "rng": rng,
            **fields_of_loss(loss, aux),
            "grads": grads,
            "updates": updates,
        }
        if self._metrics is not None:
            metrics = self._metrics.with_states(metric_states)
            fields["metric_states"] = metrics.states_from(Context(**fields))
            metric_states = metrics.merge_states(fields["metric_states"]).states
        after = Carried(params, opt_state, model_state, (step + 1, loss_fn_state, metric_states))
        return after, self._select(fields), _scalars(fields, opt_state, taped)

    def _select(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        selected = {name: fields[name] for name in self.outputs if name in fields}
        if self._check_finite:
            checked = {"loss_total": fields["loss_total"], **fields["grads"]}
            selected["finite"] = jnp.stack([jnp.isfinite(x).all() for x in checked.values()])
        return selected

    def _check_stacked(self, batch: Any) -> None:
        for path, leaf in flatten(batch).items():
            shape = getattr(leaf, "positional_shape", getattr(leaf, "shape", ()))
            if not shape or shape[0] != self._steps:
                raise BatchError(
                    f"batch/{path} is {describe(leaf)}; with steps_per_call={self._steps} each entry"
                    f" needs a first axis of {self._steps}, one batch a step. Stack that many batches:"
                    " toolshed.data.stack(batches)."
                )


def fields_of_loss(loss: jax.Array, aux: Any) -> dict[str, Any]:
    """The Context fields that a loss function fills with what it returned."""
    named = {name: aux[name] for name in FROM_AUX if name in aux} if isinstance(aux, Mapping) else {}
    return {"aux": aux, "loss_states": {"loss": loss}, "loss_total": loss, **named}


def _scalars(fields: Mapping[str, Any], opt_state: Any, record: tuple[str | Scalar, ...]) -> list[jax.Array]:
    context = Context(**fields)
    scalars = []
    for item in record:
        value = item.of(context, opt_state) if isinstance(item, Scalar) else context[item]
        if getattr(value, "shape", None) != ():
            name = item.name if isinstance(item, Scalar) else item
            raise ValueError(f"Only scalars can be recorded; {name!r} is {describe(value)}.")
        scalars.append(value)
    return scalars
