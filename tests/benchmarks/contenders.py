"""The ways to train that are compared: the limit, toolshed's, and those of other libraries.

Each builder takes a task and gives a `Contender`, or None if it does not have that model. All start
from fresh values for each measurement, so that every one does the same arithmetic, and none trains for
so long that its gradients vanish. What a contender fetches from the device is in its own loop, to be
read here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from models import Forward, Task
from penzai import pz
from penzai.toolshed import basic_training

import toolshed

STEPS_PER_CALL = 32

Run = Callable[[], Any]


class Contender(NamedTuple):
    """One way to train.

    Attributes:
      ready: from a number of steps, a run of that many from fresh values. It gives the parameters, to
        be waited for. What happens in ``ready`` is not timed. One run at a time.
      loss: the loss with the parameters that a run gave.
      once: whether a run has costs beside its steps that a caller of it meets once (a copy of the
        state). They are measured apart and taken off.
    """

    ready: Callable[[int], Run]
    loss: Callable[[Any], jax.Array]
    once: bool = False


Builder = Callable[[Task], Contender | None]


def fresh(tree: Any) -> Any:
    """A copy of every array, there to be donated; other leaves as they are."""
    copies = jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree)
    return jax.block_until_ready(copies)


def by_penzais_protocol(task: Task, forward: Forward) -> Callable[..., Any]:
    """The task's loss function as both penzai's and toolshed's trainers take it."""

    def loss_fn(*, model: Any, state: Any, rng: Any, x: jax.Array, y: jax.Array) -> Any:
        del rng
        loss = task.loss(forward(model, x), y)
        return loss, state, {"loss": loss}

    return loss_fn


class HandWritten(NamedTuple):
    """The training step that one would write by hand for this model, and its first values."""

    step: Callable[..., Any]
    loss: Callable[[Any], jax.Array]
    params: dict[str, jax.Array]
    opt_state: Any


def _hand_written(task: Task) -> HandWritten:
    """Plain jax on a dict of arrays. The model is bound while tracing, which costs nothing per step."""
    model, forward = task.models["penzai"]()
    skeleton, variables = pz.unbind_params(model, freeze=True)
    leaves, structure = jax.tree.flatten(variables)
    names = [variable.label for variable in variables]
    params = dict(zip(names, leaves, strict=True))

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        filled = jax.tree.unflatten(structure, [params[name] for name in names])
        return task.loss(forward(pz.bind_variables(skeleton, filled), x), y)

    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any]:
        grads = jax.grad(loss)(params, **batch)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    evaluate = jax.jit(loss)
    return HandWritten(
        step, lambda params: evaluate(params, **task.batch), params, task.optimizer.init(params)
    )


def limit(task: Task) -> Contender:
    """The limit: compiled ahead of time, donated, written by hand; nothing is fetched."""
    by_hand = _hand_written(task)
    arguments = (by_hand.params, by_hand.opt_state, task.batch)
    compiled = jax.jit(by_hand.step, donate_argnums=(0, 1)).lower(*arguments).compile()
    return Contender(lambda steps: _loop_by_hand(compiled, by_hand, task, steps), by_hand.loss)


def jit(task: Task) -> Contender:
    """The same through `jax.jit`."""
    by_hand = _hand_written(task)
    step = jax.jit(by_hand.step, donate_argnums=(0, 1))
    return Contender(lambda steps: _loop_by_hand(step, by_hand, task, steps), by_hand.loss)


def _loop_by_hand(step: Callable[..., Any], by_hand: HandWritten, task: Task, steps: int) -> Run:
    first, batch = fresh((by_hand.params, by_hand.opt_state)), task.batch

    def run() -> Any:
        params, opt_state = first
        for _ in range(steps):
            params, opt_state = step(params, opt_state, batch)
        return params

    return run


class _Toolshed(NamedTuple):
    """What all of toolshed's contenders begin with."""

    model: Any
    loss_fn: Callable[..., Any]
    state: toolshed.TrainState
    loss: Callable[[Any], jax.Array]

    def fresh_state(self) -> toolshed.TrainState:
        step, params, opt_state = fresh((self.state.step, self.state.params, self.state.opt_state))
        return self.state.replace(step=step, params=params, opt_state=opt_state)


def _toolshed(task: Task) -> _Toolshed:
    model, forward = task.models["penzai"]()
    state = toolshed.TrainState.initial_state(model, task.optimizer, jax.random.key(1))

    def loss(params: Any) -> jax.Array:
        return task.loss(forward(state.replace(params=params).model, task.batch["x"]), task.batch["y"])

    return _Toolshed(model, by_penzais_protocol(task, forward), state, loss)


def toolshed_step(task: Task) -> Contender:
    """toolshed's step; every loss recorded on a tape, and fetched at the end."""
    base = _toolshed(task)
    step = toolshed.build_train_step(base.loss_fn, fields=(), donate=True)
    return Contender(lambda steps: _loop_with_tape(base, step, task.batch, steps), base.loss)


def toolshed_step_32(task: Task) -> Contender | None:
    """The same with 32 steps in one dispatch."""
    if not task.stacked:
        return None
    base = _toolshed(task)
    step = toolshed.build_train_step(base.loss_fn, fields=(), donate=True, steps_per_call=STEPS_PER_CALL)
    stacked = toolshed.data.stack([task.batch] * STEPS_PER_CALL)
    return Contender(lambda steps: _loop_with_tape(base, step, stacked, steps), base.loss)


def _loop_with_tape(base: _Toolshed, step: toolshed.TrainStep, batch: Any, steps: int) -> Run:
    first, tape = base.fresh_state(), step.tape()

    def run() -> Any:
        state = first
        for _ in range(steps // step.steps_per_call):
            state, _ = step(state, batch, tape)
        if len(tape.take().values) != steps:
            raise AssertionError(f"The tape did not record all {steps} losses.")
        return state.params

    return run


def toolshed_step_by_hand(task: Task) -> Contender:
    """toolshed's step with every field of the Context; nothing is donated."""
    base = _toolshed(task)
    step, batch = toolshed.build_train_step(base.loss_fn), task.batch

    def ready(steps: int) -> Run:
        def run() -> Any:
            state = base.state
            for _ in range(steps):
                state, _ = step(state, batch)
            return state.params

        return run

    return Contender(ready, base.loss)


def toolshed_fit(task: Task) -> Contender:
    """`Trainer.fit`, which looks at the losses twice a second."""
    return _fit(task, report=None, once=True)


def toolshed_fit_reported(task: Task) -> Contender:
    """`Trainer.fit` with a report that does nothing; states may be kept, so nothing is donated."""
    return _fit(task, report=lambda step, loss, state: None, once=False)


def _fit(task: Task, *, report: Any, once: bool) -> Contender:
    base = _toolshed(task)
    trainer = toolshed.Trainer(base.model, task.optimizer, base.loss_fn)

    def ready(steps: int) -> Run:
        data = itertools.repeat(task.batch)
        return lambda: trainer.fit(base.state, data, steps=steps, report=report).params

    return Contender(ready, base.loss, once)


def penzai_stateful(task: Task) -> Contender:
    """penzai's StatefulTrainer with its defaults."""
    model, forward = task.models["penzai"]()
    loss_fn = by_penzais_protocol(task, forward)
    trainer = basic_training.StatefulTrainer.build(jax.random.key(1), model, task.optimizer, loss_fn)
    skeleton, variables = pz.unbind_variables(model, freeze=True)
    state, batch = trainer.state.value, task.batch

    def ready(steps: int) -> Run:
        own = [variable.unfreeze_as_copy() for variable in variables]
        first = {"model": pz.bind_variables(skeleton, own), "state": pz.StateVariable(state, label="state")}
        own_trainer = dataclasses.replace(trainer, **first)

        def run() -> Any:
            for _ in range(steps):
                own_trainer.step(**batch)
            return [variable.value for variable in own]

        return run

    def loss(values: Any) -> jax.Array:
        filled = [dataclasses.replace(v, value=value) for v, value in zip(variables, values, strict=True)]
        return task.loss(forward(pz.bind_variables(skeleton, filled), batch["x"]), batch["y"])

    return Contender(ready, loss)


def penzai_v1(task: Task) -> Contender:
    """penzai's older functional step, donated."""
    from penzai.deprecated.v1.toolshed import basic_training as v1

    model, forward = task.models["penzai v1"]()
    step = v1.build_train_step_fn(by_penzais_protocol(task, forward), donate_params_and_state=True)
    initial = v1.TrainState.initial_state(model, task.optimizer, jax.random.key(1))
    batch = task.batch

    def ready(steps: int) -> Run:
        params, opt_state = fresh((initial.params, initial.opt_state))
        first = dataclasses.replace(initial, params=params, opt_state=opt_state)

        def run() -> Any:
            state = first
            for _ in range(steps):
                state, _ = step(state, **batch)
            return state.params

        return run

    def loss(params: Any) -> jax.Array:
        model = dataclasses.replace(initial, params=params).model
        return task.loss(forward(model, batch["x"]), batch["y"])

    return Contender(ready, loss)


def flax_nnx(task: Task) -> Contender:
    """Flax NNX through `nnx.jit`, which takes model and optimiser apart and together in every step."""
    from flax import nnx

    return _nnx(task, lambda train_step, *fixed: functools.partial(nnx.jit(train_step), *fixed))


def flax_nnx_cached(task: Task) -> Contender:
    """Flax NNX through `nnx.cached_partial`, which takes them apart once."""
    from flax import nnx

    return _nnx(task, lambda train_step, *fixed: nnx.cached_partial(nnx.jit(train_step), *fixed))


def flax_nnx_partial(task: Task) -> Contender | None:
    """Flax NNX through `nnx.jit_partial`, a newer function for the same, in tree mode."""
    from flax import nnx

    if not hasattr(nnx, "jit_partial"):
        return None
    return _nnx(task, functools.partial(nnx.jit_partial, graph=False))


def _nnx(task: Task, bind: Callable[..., Any]) -> Contender:
    from flax import nnx

    model, forward = task.models["flax"]()
    optimizer = nnx.Optimizer(model, task.optimizer, wrt=nnx.Param)
    graph, params = nnx.split(model, nnx.Param)
    initial = fresh((params, nnx.state(optimizer)))
    batch, structure = task.batch, jax.tree.structure(params)
    variables = jax.tree.leaves(params, is_leaf=lambda node: isinstance(node, nnx.Variable))

    def loss_fn(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return task.loss(forward(model, x), y)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(loss_fn)(model, x, y)
        optimizer.update(model, grads)
        return loss

    step = bind(train_step, model, optimizer)

    def ready(steps: int) -> Run:
        nnx.update(model, initial[0])
        nnx.update(optimizer, initial[1])

        def run() -> Any:
            for _ in range(steps):
                step(**batch)
            return [variable.get_value() for variable in variables]

        return run

    def loss(values: Any) -> jax.Array:
        return loss_fn(nnx.merge(graph, jax.tree.unflatten(structure, values)), **batch)

    return Contender(ready, loss)


def equinox(task: Task) -> Contender:
    """Equinox through `eqx.filter_jit`, donated."""
    import equinox as eqx

    model, forward = task.models["equinox"]()

    def loss_fn(model: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return task.loss(forward(model, x), y)

    @eqx.filter_jit(donate="all-except-first")
    def step(batch: Any, model: Any, opt_state: Any) -> tuple[Any, Any]:
        grads = eqx.filter_grad(loss_fn)(model, **batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state

    opt_state = task.optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    batch = task.batch

    def ready(steps: int) -> Run:
        first = fresh((model, opt_state))

        def run() -> Any:
            model, opt_state = first
            for _ in range(steps):
                model, opt_state = step(batch, model, opt_state)
            return eqx.filter(model, eqx.is_array)

        return run

    static = eqx.filter(model, eqx.is_array, inverse=True)
    return Contender(ready, lambda params: loss_fn(eqx.combine(params, static), **batch))


def equinox_arrays(task: Task) -> Contender:
    """Equinox with `jax.jit` over the model's arrays alone, donated."""
    import equinox as eqx

    model, forward = task.models["equinox"]()
    params, static = eqx.partition(model, eqx.is_inexact_array)
    opt_state, batch = task.optimizer.init(params), task.batch

    def loss_fn(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return task.loss(forward(eqx.combine(params, static), x), y)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any]:
        grads = jax.grad(loss_fn)(params, **batch)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(params, updates), opt_state

    def ready(steps: int) -> Run:
        first = fresh((params, opt_state))

        def run() -> Any:
            params, opt_state = first
            for _ in range(steps):
                params, opt_state = step(params, opt_state, batch)
            return params

        return run

    return Contender(ready, lambda params: loss_fn(params, **batch))


def keras(task: Task) -> Contender | None:
    """Keras on JAX: `Model.fit` on numpy arrays, one epoch of as many batches as there are steps."""
    if "keras" not in task.models:
        return None
    model, forward = task.models["keras"]()
    import keras  # after the backend is chosen

    like = task.batch["y"]  # Keras hands labels over as floats

    def keras_loss(y: jax.Array, preds: jax.Array) -> jax.Array:
        return task.loss(preds, y.reshape(like.shape).astype(like.dtype))

    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=keras_loss)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.trainable_variables, *model.optimizer.variables]
    initial = [variable.numpy() for variable in variables]
    x, y = (np.asarray(task.batch[name]) for name in "xy")

    def ready(steps: int) -> Run:
        for variable, value in zip(variables, initial, strict=True):
            variable.assign(value)
        many_x, many_y = (np.tile(array, (steps, *[1] * (array.ndim - 1))) for array in (x, y))

        def run() -> Any:
            if steps:
                model.fit(many_x, many_y, batch_size=len(x), epochs=1, shuffle=False, verbose=0)
            return [variable.value for variable in model.trainable_variables]

        return run

    def loss(values: Any) -> jax.Array:
        for variable, value in zip(model.trainable_variables, values, strict=True):
            variable.assign(value)
        return task.loss(forward(model, x), like)

    return Contender(ready, loss, once=True)


LIMIT, TOOLSHED, TOOLSHED_32, TOOLSHED_FIT = "limit", "toolshed-step", "toolshed-step-x32", "toolshed-fit"
PEERS: dict[str, Builder] = {
    "penzai-stateful": penzai_stateful,
    "penzai-v1": penzai_v1,
    "flax-nnx": flax_nnx,
    "flax-nnx-cached": flax_nnx_cached,
    "flax-nnx-partial": flax_nnx_partial,
    "equinox": equinox,
    "equinox-arrays": equinox_arrays,
    "keras": keras,
}
CONTENDERS: dict[str, Builder] = {
    LIMIT: limit,
    "jit": jit,
    TOOLSHED: toolshed_step,
    TOOLSHED_32: toolshed_step_32,
    TOOLSHED_FIT: toolshed_fit,
    "toolshed-fit-report": toolshed_fit_reported,
    "toolshed-all-fields": toolshed_step_by_hand,
    **PEERS,
}
