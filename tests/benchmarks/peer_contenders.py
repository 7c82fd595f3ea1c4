"""The ways of other libraries to train, as `contenders.Contender`s.

Each library is imported only when it is used. Each loop is what its documentation shows, with donation
where it offers that. Each step gives its loss, which is not fetched from the device.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from contenders import Builder, Contender, Run, by_penzais_protocol, fresh
from models import Task
from penzai import pz
from penzai.toolshed import basic_training


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
    def step(batch: Any, model: Any, opt_state: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = eqx.filter_value_and_grad(loss_fn)(model, **batch)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(model, updates), opt_state, loss

    opt_state = task.optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    batch = task.batch

    def ready(steps: int) -> Run:
        first = fresh((model, opt_state))

        def run() -> Any:
            model, opt_state = first
            for _ in range(steps):
                model, opt_state, _ = step(batch, model, opt_state)
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
    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(loss_fn)(params, **batch)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return eqx.apply_updates(params, updates), opt_state, loss

    def ready(steps: int) -> Run:
        first = fresh((params, opt_state))

        def run() -> Any:
            params, opt_state = first
            for _ in range(steps):
                params, opt_state, _ = step(params, opt_state, batch)
            return params

        return run

    return Contender(ready, lambda params: loss_fn(params, **batch))


def keras_fit(task: Task, verbose: int = 0) -> Contender | None:
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
                model.fit(many_x, many_y, batch_size=len(x), epochs=1, shuffle=False, verbose=verbose)
            return [variable.value for variable in model.trainable_variables]

        return run

    def loss(values: Any) -> jax.Array:
        for variable, value in zip(model.trainable_variables, values, strict=True):
            variable.assign(value)
        return task.loss(forward(model, x), like)

    return Contender(ready, loss, once=True)


PEERS: dict[str, Builder] = {
    "penzai-stateful": penzai_stateful,
    "penzai-v1": penzai_v1,
    "flax-nnx": flax_nnx,
    "flax-nnx-cached": flax_nnx_cached,
    "flax-nnx-partial": flax_nnx_partial,
    "equinox": equinox,
    "equinox-arrays": equinox_arrays,
    "keras": keras_fit,
}
