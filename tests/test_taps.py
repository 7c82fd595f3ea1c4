"""Taps: what is noted in a step, under which name, and what they never do."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import new_state
from toolshed import build_train_step, tap
from toolshed.errors import FieldNotFilled, LossError, ToolshedError
from toolshed.taps import collecting


def tapped_loss(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
    tap("errors/signed", aux["preds"] - y)
    return loss, state, aux


def test_outside_of_a_step_a_tap_gives_its_value_back_and_nothing_else():
    value = jnp.arange(3.0)
    assert tap("x", value) is value
    assert jax.jit(lambda x: tap("x", x) * 2)(value).tolist() == [0, 2, 4]


def test_what_is_tapped_in_a_loss_function_is_in_the_context():
    case = zoo.mlp()
    _, context = build_train_step(tapped_loss)(new_state(case), case.batch)
    np.testing.assert_array_equal(context["interms/errors/signed"], context.preds - case.batch["y"])


def test_a_step_that_did_not_ask_has_no_intermediates():
    case = zoo.mlp()
    _, context = build_train_step(tapped_loss, fields=("loss_total",))(new_state(case), case.batch)
    with pytest.raises(
        FieldNotFilled, match=r"note values with toolshed\.tap\('name', value\) or toolshed\.c"
    ):
        _ = context.interms


def test_a_name_that_is_tapped_again_gets_a_number():
    with collecting() as values:
        for number in range(3):
            tap("h", number)
        tap("other", 3)
    assert values == {"h": 0, "h#2": 1, "h#3": 2, "other": 3}


def test_only_the_innermost_collection_sees_a_tap():
    with collecting() as outer:
        with collecting() as inner:
            tap("a", 1)
        tap("b", 2)
    assert (outer, inner) == ({"b": 2}, {"a": 1})


@pytest.mark.parametrize(
    "transformed",
    [
        lambda x: jax.lax.scan(lambda c, x: (tap("h", c + x), None), 0.0, x)[0],
        lambda x: jax.vmap(lambda x: tap("h", x))(x).sum(),
        lambda x: jax.jit(lambda x: tap("h", x))(x).sum(),
        lambda x: jax.checkpoint(lambda x: tap("h", jnp.sin(x)))(x).sum(),
    ],
    ids=["scan", "vmap", "jit", "checkpoint"],
)
def test_a_tap_whose_value_cannot_leave_is_an_error_that_says_where_it_stands(transformed):
    def loss_fn(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return jnp.asarray(transformed(x[:, 0])), state, None

    case = zoo.mlp()
    with pytest.raises(
        ToolshedError, match=r"^tap\('h'\) stands inside a function that jax transforms apart"
    ):
        build_train_step(loss_fn)(new_state(case), case.batch)
    assert tap("after", 1) == 1  # and nothing is left behind


@pytest.mark.parametrize("name", ["", 3, None])
def test_a_tap_needs_a_name(name):
    with collecting(), pytest.raises(ToolshedError, match=r"^The name of a tap is .*; expected a string\.$"):
        tap(name, 1)


def with_aux(make_aux: Any) -> Any:
    def loss_fn(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        loss, state, _ = tapped_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, make_aux()

    return loss_fn


def test_taps_and_returned_intermediates_stand_side_by_side():
    case = zoo.mlp()
    loss_fn = with_aux(lambda: {"interms": {"own": jnp.ones(2)}})
    _, context = build_train_step(loss_fn)(new_state(case), case.batch)
    assert sorted(context.interms) == ["errors/signed", "own"]
    _, context = build_train_step(with_aux(lambda: None))(new_state(case), case.batch)
    assert sorted(context.interms) == ["errors/signed"]


@pytest.mark.parametrize(
    ("make_aux", "message"),
    [
        (lambda: jnp.ones(3), r"^loss_fn returned float32\[3\] as aux; expected a dict, because what was"),
        (
            lambda: {"interms": {"errors/signed": 1.0}},
            r"^'errors/signed' is tapped, and loss_fn returns it in aux\['interms'\], too\.",
        ),
    ],
)
def test_an_aux_that_has_no_place_for_what_was_tapped_is_an_error(make_aux, message):
    case = zoo.mlp()
    with pytest.raises(LossError, match=message):
        build_train_step(with_aux(make_aux))(new_state(case), case.batch)


def test_metrics_can_look_at_what_was_tapped():
    metrics = toolshed.metrics.collection(bias=toolshed.metrics.Mean("interms/errors/signed"))
    trainer = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), tapped_loss, metrics=metrics)
    state, batch = trainer.init(jax.random.key(0)), zoo.mlp().batch
    after, context = trainer.step(state, batch)
    expected = float(np.mean(context.preds - np.asarray(batch["y"])))
    assert after.compute_metrics()["bias"] == pytest.approx(expected, rel=1e-5)
    assert trainer.evaluate(state, [batch])["bias"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_taps_work_with_several_steps_in_one_call(steps_per_call):
    case = zoo.mlp()
    step = build_train_step(tapped_loss, fields=("interms",), steps_per_call=steps_per_call)
    batch = case.batch if steps_per_call == 1 else toolshed.data.stack([case.batch] * steps_per_call)
    _, context = step(new_state(case), batch)
    expected = case.batch["y"].shape if steps_per_call == 1 else (steps_per_call, *case.batch["y"].shape)
    assert context["interms/errors/signed"].shape == expected


def test_named_arrays_may_be_tapped():
    def loss_fn(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        named = tap("named", model(pz.nx.wrap(x, "batch", "features")))
        return (named.unwrap("batch", "features") ** 2).mean(), state, {}

    case = zoo.mlp()
    _, context = build_train_step(loss_fn)(new_state(case), case.batch)
    assert context["interms/named"].named_shape == {"batch": 8, "features": 1}
