"""A step hands out what is watched, where that changes no bit of what it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests.training.by_hand import differing, values_of
from toolshed.run.looks import _is_same, make_the_same
from toolshed.training import stepper
from toolshed.training.stepper import Stepper

pytestmark = pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")  # the last batch is short
WIDE = [64, 600, 3]  # 480 kB with its moments
NARROW = [64, 16, 3]


def loss_fn(*, model: Any, state: Any, rng: Any, x: jax.Array, y: jax.Array) -> Any:
    del rng
    preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    return jnp.mean((preds - y) ** 2), state, {"preds": preds}


def trainer(sizes: list[int] = WIDE) -> toolshed.Trainer:
    return toolshed.Trainer(MLP.from_config(jax.random.key(0), sizes), optax.adam(1e-2), loss_fn)


def even_data() -> list[Any]:
    """Batches of one shape, each other values."""
    return [batch for batch in data() if len(batch["x"]) == 8] * 500


def data() -> Any:
    rng = np.random.default_rng(0)
    examples = {"x": rng.normal(size=(20, 64)), "y": rng.normal(size=(20, 3))}
    return toolshed.data.from_arrays(
        {name: values.astype(np.float32) for name, values in examples.items()},
        batch_size=8,
        seed=1,
        last="keep",
    )


@pytest.mark.parametrize("together", [True, False])
def test_a_step_that_hands_out_its_gradients_is_the_step(together: bool, monkeypatch: pytest.MonkeyPatch):
    if not together:
        monkeypatch.setattr(stepper, "_SMALL_ON_CPU", 0)
    one, other = (toolshed.Run(trainer(), data()) for _ in range(2))
    watched = one.watch("grads/**", every=2, statistics=["rms", "absmax"])
    updates = one.watch("updates/**", every=4, statistics=["norm"])
    for run in (one, other):
        run.train(13, wait=True)
    tried = one._engine.looks._tried
    assert {kind[0] for kind in tried} == {("grads", "updates"), ("grads",)}
    assert any(step is not None for step in tried.values()), "nothing was handed out on this machine"
    assert differing(values_of(one.state), values_of(other.state)) == []
    assert watched.values()[0].tolist() == [1, 3, 5, 7, 9, 11, 13]
    assert updates.values()[0].tolist() == [1, 5, 9, 13]
    for step, row in zip(*watched.values("absmax"), strict=True):
        grads = other.explain(int(step)).grads
        right = [np.abs(np.asarray(grads[path.removeprefix("grads/")])).max() for path in watched.paths]
        np.testing.assert_allclose(row, right, rtol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        pytest.param(WIDE, 8, id="handed out: the step that is looked at has a call of its own"),
        pytest.param(NARROW, 9, id="computed beside: a call begins with the step that is looked at"),
    ],
)
def test_steps_between_two_looks_are_made_several_in_a_call(
    sizes: list[int], most: int, monkeypatch: pytest.MonkeyPatch
):
    made: list[int] = []
    make = Stepper.__call__

    def counting(stepper: Stepper, step: Any, some: Any, tape: Any, **options: Any) -> Any:
        made.append(len(some))
        return make(stepper, step, some, tape, **options)

    monkeypatch.setattr(Stepper, "__call__", counting)
    run = toolshed.Run(trainer(sizes), even_data())
    watched = run.watch("grads/**", every=9, statistics=["absmax"])
    run.train(1_000, wait=True)
    assert max(made) == most
    steps, rows = watched.values("absmax")
    assert steps.tolist() == list(range(1, 1_001, 9))
    for step, row in list(zip(steps, rows, strict=True))[-3:]:
        grads = run.explain(int(step)).grads
        right = [np.abs(np.asarray(grads[path.removeprefix("grads/")])).max() for path in watched.paths]
        np.testing.assert_allclose(row, right, rtol=1e-5)


def test_a_watched_run_goes_back_to_the_same_bits():
    run = toolshed.Run(trainer(), data(), snapshot_every=4)
    run.watch("grads/**", every=3)
    run.train(10, wait=True)
    kept = run.state
    run.goto(2)
    run.goto(10)
    assert differing(values_of(kept), values_of(run.state)) == []


def test_a_step_that_makes_something_else_is_found_out():
    def slightly_more(*, model: Any, state: Any, rng: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, state, aux = loss_fn(model=model, state=state, rng=rng, x=x, y=y)
        return loss * jnp.float32(1 + 2e-7), state, aux

    batch = next(iter(data()))
    state = trainer().init(jax.random.key(1))
    plain, same, other, broken = (
        toolshed.build_train_step(fn, fields=(), donate=True)
        for fn in (loss_fn, loss_fn, slightly_more, lambda **_: 1 / 0)
    )
    assert make_the_same(plain, same, state, batch)
    assert not make_the_same(plain, other, state, batch)
    assert not make_the_same(plain, broken, state, batch)
    state.check_alive()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([1.0, jnp.nan], [1.0, jnp.nan], True),
        ([1.0, jnp.nan], [jnp.nan, 1.0], False),
        ([0.0], [-0.0], False),
        ([jnp.inf], [-jnp.inf], False),
        ([1.0], [float(np.nextafter(np.float32(1), np.float32(2)))], False),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_values_are_the_same_by_their_bits(one: list[float], other: list[float], same: bool, dtype: Any):
    this: Callable[[Any], jax.Array] = lambda values: jnp.asarray(values, dtype)  # noqa: E731
    assert bool(_is_same(this(one), this(other))) is same
