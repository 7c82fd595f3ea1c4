"""Hyperparameters and models that are changed in the middle of a run, with receipts, and made again."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP
from penzai.toolshed import lora

import toolshed
from tests import zoo
from tests.run.small import data, events_of, is_clean, new_run, params_of, slow_stream, until, values
from tests.training.by_hand import count_compilations, differing, values_of
from toolshed.errors import RunError, ToolshedError

AFFINE = "mlp/Affine_{}/Linear.weights"


def scaled_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    """A loss with a weight, a whole number and a switch that can be set while it trains."""
    loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
    factor = state["weight"] * state["times"] * jnp.where(state["doubled"], 2.0, 1.0)
    return loss * factor, state, aux


@functools.cache
def scaled() -> toolshed.Trainer:
    return toolshed.Trainer(zoo.mlp().model, optax.sgd(1e-3), scaled_loss)


def scaled_run(**options: Any) -> toolshed.Run:
    state = toolshed.TrainState.initial_state(
        zoo.mlp().model,
        scaled().optimizer,
        jax.random.key(1),
        {"weight": jnp.float32(1.0), "times": jnp.int32(1), "doubled": jnp.array(False)},
    )
    return toolshed.Run(scaled(), state, list(data()), **options)


# --- hyperparameters --------------------------------------------------------------------------------


def test_an_edit_holds_from_the_next_step_on_compiles_nothing_and_leaves_a_receipt():
    run = new_run()
    run.train(4, wait=True)
    run.edit(learning_rate=0.03)
    run.train(1, wait=True)
    run.goto(4)
    with count_compilations() as compiled:
        run.goto(5)
        run.edit(learning_rate=jnp.float32(0.02), b1=0.5)
        run.train(3, wait=True)
    assert compiled == []
    rates = values(run, "optim/learning_rate")
    expected = dict.fromkeys(range(1, 5), 0.01) | {5: 0.03} | dict.fromkeys(range(6, 9), 0.02)
    assert rates == pytest.approx(expected)
    receipts = [
        (event.step, event.data["name"], event.data["old"], event.data["new"])
        for event in events_of(run, "edited")
    ]
    assert receipts == [
        (4, "learning_rate", pytest.approx(0.01), pytest.approx(0.03)),
        (5, "learning_rate", pytest.approx(0.03), pytest.approx(0.02)),
        (5, "b1", pytest.approx(0.9), 0.5),
    ]
    assert events_of(run, "edited")[0].text == "learning_rate: 0.01 → 0.03"
    assert run.hyperparameters["learning_rate"] == pytest.approx(0.02)
    assert run.hyperparameters["b1"] == 0.5
    context = run.explain(6)
    by_hand = optax.adam(0.02, b1=0.5).update(
        context.grads, context.opt_state.inner_state, dict(context.params)
    )
    for path, update in by_hand[0].items():
        np.testing.assert_allclose(update, context.updates[path], rtol=1e-5)


def test_an_edit_while_training_pauses_nothing():
    run = new_run(slow_stream())
    run.train(60, wait=False)
    until(lambda: run.progress.step > 5)
    run.edit(learning_rate=0.5)
    assert run.status == "training"
    run.wait()
    at = events_of(run, "edited")[0].step
    assert 5 < at < 60
    rates = values(run, "optim/learning_rate")
    assert (rates[at], rates[at + 1]) == (pytest.approx(0.01), 0.5)
    end = params_of(run)
    run.goto(at)
    run.goto(60)
    assert differing(params_of(run), end) == []


def test_an_edit_of_the_past_begins_a_branch_and_both_futures_are_kept():
    run = new_run()
    run.train(8, wait=True)
    first = params_of(run)
    run.goto(3)
    run.edit(learning_rate=0.05)
    assert run.progress.branch == "main-2"
    run.train(5, wait=True)
    second = params_of(run)
    assert differing(first, second) != []
    run.goto(8, "main")
    assert differing(params_of(run), first) == []
    assert is_clean(run)
    run.goto(8, "main-2")
    assert differing(params_of(run), second) == []
    assert values(run, "optim/learning_rate", "main")[8] == pytest.approx(0.01)
    assert values(run, "optim/learning_rate", "main-2")[4] == pytest.approx(0.05)


def test_the_numbers_of_a_loss_function_are_set_in_their_own_kind_and_made_again():
    run, plain = scaled_run(), scaled_run()
    assert run.hyperparameters == {"weight": 1.0, "times": 1.0, "doubled": 0.0}
    for one in (run, plain):
        one.train(2, wait=True)
    run.edit(weight=0.5, times=3, doubled=True)
    state = run.state.loss_fn_state
    assert {name: (value.dtype, value.item()) for name, value in state.items()} == {
        "weight": (jnp.float32, 0.5),
        "times": (jnp.int32, 3),
        "doubled": (jnp.bool_, True),
    }
    for one in (run, plain):
        one.train(1, wait=True)
    assert values(run, "train/loss")[3] == pytest.approx(3 * values(plain, "train/loss")[3], rel=1e-6)
    end = values_of(run.state)
    run.goto(1)
    run.goto(3)
    assert differing(values_of(run.state), end) == []
    assert run.hyperparameters == {"weight": 0.5, "times": 3.0, "doubled": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"times": 1.5}, r"^times is to be 1\.5; it is of type int32, so expected a whole number\.$"),
        ({"times": True}, r"^times is bool True; expected one number\.$"),
        ({"doubled": 0.5}, r"^doubled is to be 0\.5; it is of type bool, so expected a whole number\.$"),
        ({"weight": "high"}, r"^weight is str; expected one number\.$"),
        ({"weight": np.ones(2)}, r"^weight is float64\[2\]; expected one number\.$"),
        ({"weight": 1j}, r"^weight is complex 1j; expected one number\.$"),
        (
            {"weight": 2.0, "wieght": 1},
            r"'wieght' that can be set while training\. There are doubled, times, weight\.",
        ),
        ({}, r"^There is nothing to set\. There are doubled, times, weight\.$"),
    ],
)
def test_an_edit_that_cannot_be_made_changes_nothing(values: dict[str, Any], message: str):
    run = scaled_run()
    run.train(1, wait=True)
    before = values_of(run.state)
    with pytest.raises(RunError, match=message):
        run.edit(**values)
    assert differing(values_of(run.state), before) == []
    assert run.events == ()
    run.train(1, wait=True)


def test_what_a_schedule_sets_cannot_be_set():
    optimizer = optax.inject_hyperparams(optax.adamw)(
        learning_rate=optax.schedules.linear_schedule(0.1, 0.0, 10), weight_decay=0.25
    )
    run = toolshed.Run(zoo.mlp().model, optimizer, zoo.regression_loss, list(data()))
    assert "learning_rate" not in run.hyperparameters
    with pytest.raises(
        RunError, match=r"^A schedule sets 'learning_rate' anew in each step, so it cannot be"
    ):
        run.edit(learning_rate=0.5)
    run.edit(weight_decay=0.5)
    run.train(3, wait=True)
    assert values(run, "optim/learning_rate") == pytest.approx({1: 0.1, 2: 0.09, 3: 0.08})
    assert run.hyperparameters["weight_decay"] == 0.5


def test_an_optimiser_that_keeps_nothing_says_how_to_make_one_that_does():
    run = toolshed.Run(zoo.mlp().model, optax.sgd(0.1), zoo.regression_loss, list(data()))
    assert run.hyperparameters == {}
    with pytest.raises(RunError, match=r"Make the optimiser with optax\.inject_hyperparams\(optax\.adam\)\("):
        run.edit(learning_rate=0.5)


# --- models -----------------------------------------------------------------------------------------


def frozen_first(model: Any) -> Any:
    """The model with the first layer's parameters declared not trainable."""

    def freeze(parameter: pz.Parameter) -> pz.Parameter:
        return zoo.not_trainable(parameter) if "Affine_0" in str(parameter.label) else parameter

    return pz.select(model).at_instances_of(pz.Parameter).apply(freeze)


def widened(model: Any) -> Any:
    """A wider model whose first units are those of the given one."""
    wide = MLP.from_config(init_base_rng=jax.random.key(9), feature_sizes=[4, 12, 1])
    old = {parameter.label: parameter.value for parameter in pz.unbind_params(model)[1]}

    def fill(parameter: pz.Parameter) -> pz.Parameter:
        value = old[parameter.label]
        if value.named_shape != parameter.value.named_shape:
            return parameter
        return pz.Parameter(value=value, label=parameter.label, metadata=parameter.metadata)

    return pz.select(wide).at_instances_of(pz.Parameter).apply(fill)


def with_lora(model: Any) -> Any:
    return lora.loraify_linears_in_selection(
        pz.select(pz.freeze_params(model)), rank=2, init_base_rng=jax.random.key(2)
    )


def short(paths: tuple[str, ...]) -> set[str]:
    return {path.rsplit(".", 1)[-1] if path.startswith("params/") else "" for path in paths} - {""}


@pytest.mark.parametrize("change", [with_lora, frozen_first, widened], ids=lambda fn: fn.__name__)
def test_a_model_is_changed_in_the_middle_of_a_run_and_time_still_goes_both_ways(change: Any):
    run = new_run(snapshot_every=4)
    run.train(6, wait=True)
    before, opt_state = params_of(run), values_of(run.state)
    told = run.edit_model(change)
    after = params_of(run)
    assert int(run.state.step) == 6
    params = {path.removeprefix("params/") for path in told.kept if path.startswith("params/")}
    for path in params & set(before):
        assert before[path].shape == after[path].shape
    everything = {*told.kept, *told.new}
    assert {f"params/{path}" for path in after} <= everything
    assert {f"params/{path}" for path in before} <= {*told.kept, *told.dropped}
    assert not set(told.kept) & set(told.new)
    for path in told.kept:  # what was kept of the optimiser is as it was
        if path.startswith("opt_state/") and path in opt_state:
            np.testing.assert_array_equal(values_of(run.state)[path], opt_state[path])
    event = events_of(run, "model_edited")[0]
    assert event.text == f"model changed: {told}"
    assert event.data == {name: list(getattr(told, name)) for name in told._fields}
    run.train(5, wait=True)
    end = params_of(run)
    assert differing(end, after) != []
    run.goto(3)
    assert is_clean(run)
    run.goto(6)
    assert differing(params_of(run), after) == []
    run.goto(11)
    assert differing(params_of(run), end) == []
    context = run.explain(8)
    assert set(context.params) == set(after)
    assert list(values(run, "train/loss")) == list(range(1, 12))


def test_a_changed_model_keeps_what_fits_and_says_what_does_not():
    run = new_run()
    run.train(3, wait=True)
    told = run.edit_model(widened)
    assert "params/mlp/Affine_1/AddBias.bias" in told.kept
    assert any(path.endswith("mu/mlp/Affine_1/AddBias.bias") for path in told.kept)
    assert "params/mlp/Affine_0/Linear.weights" in told.dropped
    assert "params/mlp/Affine_0/Linear.weights" in told.new
    assert str(told) == f"{len(told.kept)} values kept, {len(told.dropped)} dropped, {len(told.new)} new"


def test_a_frozen_layer_stays_as_it_is():
    run = new_run()
    run.train(3, wait=True)
    before = run.state.model
    run.edit_model(frozen_first)
    assert not any("Affine_0" in path for path in run.state.params)
    run.train(4, wait=True)

    def weights(model: Any, layer: int) -> np.ndarray:
        found = {str(one.label): one.value for one in pz.unbind_params(model, freeze=True)[1]}
        (value,) = [v for k, v in found.items() if f"Affine_{layer}/Linear" in k]
        return np.asarray(jax.tree.leaves(value)[0])

    np.testing.assert_array_equal(weights(run.state.model, 0), weights(before, 0))
    assert not np.array_equal(weights(run.state.model, 1), weights(before, 1))


def test_a_model_that_is_changed_in_the_past_begins_a_branch():
    run = new_run()
    run.train(6, wait=True)
    run.goto(2)
    run.edit_model(frozen_first)
    run.train(2, wait=True)
    assert run.progress.branch == "main-2"
    run.goto(6, "main")
    assert is_clean(run)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda model: None,
            RunError,
            r"^The function gave None; expected it to return the changed model\.$",
        ),
        (lambda model: 3, ToolshedError, "model"),
        (lambda model: 1 / 0, ZeroDivisionError, "division"),
    ],
)
def test_a_change_of_the_model_that_fails_changes_nothing(change: Any, error: type, message: str):
    run = new_run()
    run.train(3, wait=True)
    with pytest.raises(error, match=message):
        run.edit_model(change)
    assert run.events == ()
    run.train(3, wait=True)
    assert is_clean(run)
