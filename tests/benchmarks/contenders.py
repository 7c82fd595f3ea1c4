"""The ways to train that are compared: the limit and toolshed's; `peer_contenders` has the others.

Each builder takes a task and gives a `Contender`, or None if it does not have that model. All start
from fresh values for each measurement, so that every one does the same arithmetic, and none trains for
so long that its gradients vanish. What a contender fetches from the device is in its own loop, to be
read here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from models import Forward, Task
from penzai import pz

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
    """The training step that one would write by hand for this model, and its first values.

    It returns the loss beside the next values, as such loops do, for whoever would like to fetch it.
    """

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

    def step(params: Any, opt_state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, grads = jax.value_and_grad(loss)(params, **batch)
        updates, opt_state = task.optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return HandWritten(step, lambda params: loss(params, **task.batch), params, task.optimizer.init(params))


def limit(task: Task) -> Contender:
    """The limit: compiled ahead of time, donated, written by hand; the loss is there, and not fetched."""
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
            params, opt_state, _ = step(params, opt_state, batch)
        return params

    return run


class _Toolshed(NamedTuple):
    """What all of toolshed's contenders begin with."""

    model: Any
    loss_fn: Callable[..., Any]
    trainer: toolshed.Trainer
    state: toolshed.TrainState
    loss: Callable[[Any], jax.Array]

    def fresh_state(self) -> toolshed.TrainState:
        step, params, opt_state = fresh((self.state.step, self.state.params, self.state.opt_state))
        return self.state.replace(step=step, params=params, opt_state=opt_state)


def _toolshed(task: Task) -> _Toolshed:
    model, forward = task.models["penzai"]()
    loss_fn = by_penzais_protocol(task, forward)
    trainer = toolshed.Trainer(model, task.optimizer, loss_fn)
    state = toolshed.TrainState.initial_state(model, task.optimizer, jax.random.key(1))

    def loss(params: Any) -> jax.Array:
        return task.loss(forward(state.replace(params=params).model, task.batch["x"]), task.batch["y"])

    return _Toolshed(model, loss_fn, trainer, state, loss)


def toolshed_step(task: Task) -> Contender:
    """toolshed's step; every loss recorded on a tape, and fetched at the end."""
    base = _toolshed(task)
    step = base.trainer.build_step(fields=(), donate=True)
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
    """`Trainer.fit`, which looks at the losses twice a second, and makes several steps in a call."""
    return _fit(task, report=None, once=True)


def toolshed_fit_reported(task: Task) -> Contender:
    """`Trainer.fit` with a report that does nothing; states may be kept, so nothing is donated."""
    return _fit(task, report=lambda step, loss, state: None, once=False)


def _fit(task: Task, *, report: Any, once: bool) -> Contender:
    base = _toolshed(task)

    def ready(steps: int) -> Run:
        data = itertools.repeat(task.batch)
        return lambda: base.trainer.fit(base.state, data, steps=steps, report=report).params

    return Contender(ready, base.loss, once)


LIMIT, TOOLSHED, TOOLSHED_32, TOOLSHED_FIT = "limit", "toolshed-step", "toolshed-step-x32", "toolshed-fit"
OURS: dict[str, Builder] = {
    LIMIT: limit,
    "jit": jit,
    TOOLSHED: toolshed_step,
    TOOLSHED_32: toolshed_step_32,
    TOOLSHED_FIT: toolshed_fit,
    "toolshed-fit-report": toolshed_fit_reported,
    "toolshed-all-fields": toolshed_step_by_hand,
}
