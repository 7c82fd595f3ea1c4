"""Watches: when training stops, slows down and is kept, at hand-made values and in real training."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, differing, values_of
from toolshed import EarlyStop, EarlyStopping, KeepBest, ReduceOnPlateau, Trainer
from toolshed.data import from_arrays
from toolshed.errors import DataError, ToolshedError
from toolshed.metrics import Mean, Norm, collection

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
DATA = {"x": X, "y": X.sum(axis=1, keepdims=True)}


def stream(batch_size: int = 8) -> Any:
    return from_arrays(DATA, batch_size, seed=3)


def injected(learning_rate: float = 1e-2) -> Any:
    return optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate)


@functools.cache
def trainer() -> Trainer:
    metrics = collection(mean=Mean("preds"))
    return Trainer(zoo.mlp().model, injected(), zoo.regression_loss, metrics=metrics)


def start() -> toolshed.TrainState:
    return trainer().init(jax.random.key(1))


def learning_rate(state: toolshed.TrainState) -> float:
    return float(state.opt_state.hyperparams["learning_rate"])


def stops_at(watch: EarlyStopping, values: list[float]) -> int | None:
    for step, value in enumerate(values):
        try:
            watch(step, {"loss": value}, start())
        except EarlyStop:
            return step
    return None


# --- early stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "values", "expected"),
    [
        ({"patience": 1}, [3, 2, 2], 2),  # not better is not better
        ({"patience": 2}, [3, 2, 2.5, 1, 1.5, 1.2], 5),  # 1 is better, and begins the count anew
        ({"patience": 2}, [3, 2, 1], None),
        ({"patience": 1, "mode": "max"}, [1, 2, 3, 2], 3),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.4, 2.0], 2),  # 0.4 better is not enough
        ({"patience": 2}, [math.nan, math.nan], 1),  # NaN is never better
        ({"patience": 2}, [3, math.nan, 2, 2.5], None),
    ],
)
def test_patience_counts_the_windows_without_a_better_value(options, values, expected):
    assert stops_at(EarlyStopping("loss", **options), values) == expected


def test_training_ends_early_with_the_state_that_it_has():
    seen: list[int] = []
    state = trainer().fit(
        start(),
        stream(),
        steps=40,
        window=4,
        watch=[
            lambda step, values, state: seen.append(step),
            EarlyStopping("train/mean", patience=3, min_delta=100),
        ],
    )
    assert seen == [4, 8, 12, 16]  # the first window is the best there is; three more pass
    assert int(state.step) == 16


def test_a_watch_begins_anew_with_each_fit():
    watch = EarlyStopping("train/mean", patience=2, min_delta=100)
    for _ in range(2):
        assert int(trainer().fit(start(), stream(), steps=40, window=2, watch=watch).step) == 6


# --- reduce on plateau ------------------------------------------------------------------------------


def test_a_plateau_really_lowers_the_learning_rate_and_compiles_nothing_anew():
    watch = ReduceOnPlateau("train/mean", patience=1, min_delta=100, factor=0.1)
    rates: list[float] = []
    trainer().fit(start(), stream(), steps=4, window=2)  # compiled
    with count_compilations() as compiled:
        state = trainer().fit(
            start(),
            stream(),
            steps=8,
            window=2,
            watch=[watch, lambda step, values, state: rates.append(learning_rate(state))],
        )
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4, 1e-5])
    assert learning_rate(state) == pytest.approx(1e-5)
    assert not any("_trace" in name for name in compiled)


def test_the_optimiser_takes_steps_of_the_lowered_rate():
    lowered = ReduceOnPlateau("train/loss", patience=1, factor=0.25)._lowered(start().opt_state)
    plain = trainer().fit(start(), stream(), steps=1)
    slowed = trainer().fit(start().replace(opt_state=lowered), stream(), steps=1)
    for path, before in start().params.items():  # adam's first step is its learning rate in each direction
        np.testing.assert_allclose(
            slowed.params[path] - before, (plain.params[path] - before) / 4, rtol=1e-3, atol=1e-7
        )


def test_the_rate_does_not_fall_below_the_minimum_nor_rise_to_it():
    for rate, expected in ((1e-2, 5e-3), (1e-3, 1e-3)):
        state = start().replace(opt_state=injected(rate).init(start().params))
        watch = ReduceOnPlateau("loss", patience=1, factor=0.1, minimum=5e-3)
        watch(0, {"loss": 1.0}, state)
        changed = watch(1, {"loss": 1.0}, state)
        assert changed is not None
        assert learning_rate(changed) == pytest.approx(expected)


def fit_with(optimizer: Any, watch: Any, **options: Any) -> Any:
    trainer = Trainer(zoo.mlp().model, optimizer, zoo.regression_loss)
    return trainer.fit(trainer.init(jax.random.key(0)), stream(), steps=2, watch=watch, **options)


def test_an_optimiser_without_its_learning_rate_in_its_state_is_refused_before_the_first_step():
    watch = ReduceOnPlateau("train/loss", patience=1)
    with pytest.raises(ToolshedError, match=r"^The optimiser does not keep 'learning_rate' in its state"):
        fit_with(optax.adam(1e-2), watch)
    schedule = optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(1e-2, 0, 10))
    with pytest.raises(ToolshedError, match=r"^A schedule sets 'learning_rate' anew at each step"):
        fit_with(schedule, watch)


# --- the best state ---------------------------------------------------------------------------------


def test_the_best_state_is_kept_and_stays_valid():
    best = KeepBest("eval/mean", mode="max")
    states: dict[int, tuple[float, Any]] = {}

    def note(step: int, values: Any, state: Any) -> None:
        states[step] = values["eval/mean"], values_of(state)

    end = trainer().fit(start(), stream(), steps=12, window=3, eval_data=stream(), watch=[best, note])
    step = max(states, key=lambda step: states[step][0])
    assert best.best_step == step
    assert best.best == states[step][0]
    assert best.state is not None
    assert differing(values_of(best.state), states[step][1]) == []
    assert best.state.compute_metrics()["mean"] == pytest.approx(float(best.state.compute_metrics()["mean"]))
    assert int(end.step) == 12


# --- windows ----------------------------------------------------------------------------------------


def test_a_windows_values_are_those_of_the_window():
    seen: dict[int, dict[str, float]] = {}
    losses: list[float] = []
    state = start()
    trainer().fit(
        state,
        stream(),
        steps=6,
        window=3,
        report=lambda step, loss, state: losses.append(float(loss)),
        eval_data=stream(5),
        watch=lambda step, values, state: seen.__setitem__(step, dict(values)),
    )
    assert list(seen) == [3, 6]
    assert list(seen[3]) == ["train/loss", "train/mean", "eval/loss", "eval/mean"]
    assert seen[3]["train/loss"] == pytest.approx(np.mean(losses[:3]), rel=1e-6)
    assert seen[6]["train/loss"] == pytest.approx(np.mean(losses[3:]), rel=1e-6)
    middle = trainer().fit(state, stream(), steps=3)
    assert seen[3]["eval/loss"] == trainer().evaluate(middle, stream(5))["loss"]
    assert seen[3]["train/mean"] == pytest.approx(middle.compute_metrics()["mean"], rel=1e-6)


def test_looking_at_windows_changes_no_bit_of_training():
    plain = trainer().fit(start(), stream(), steps=7)
    watched = trainer().fit(start(), stream(), steps=7, window=2, eval_data=stream())
    assert differing(plain.params, watched.params) == []
    assert differing(plain.opt_state, watched.opt_state) == []


def test_a_window_is_as_long_as_the_data_where_nothing_is_said():
    steps: list[int] = []
    trainer().fit(start(), stream(), steps=7, watch=lambda step, values, state: steps.append(step))
    assert steps == [3, 6, 7]


def test_an_error_in_a_watch_leaves_the_last_state():
    def broken(step: int, values: Any, state: Any) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk") as caught:
        trainer().fit(start(), stream(), steps=6, window=2, watch=broken)
    assert caught.value.__notes__ == ["Training stopped after step 2; its state is trainer.last_state."]
    last = trainer().last_state
    assert last is not None
    assert differing(last.params, trainer().fit(start(), stream(), steps=2).params) == []


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"watch": EarlyStopping("eval/loss", patience=1)},
            ToolshedError,
            r"^EarlyStopping has no value 'eval/loss' to monitor\. Did you mean 'train/loss'\?$",
        ),
        (
            {"watch": KeepBest("accuracy"), "eval_data": []},
            ToolshedError,
            r"^KeepBest has no value 'accuracy' to monitor\. There are train/loss, eval/loss\.$",
        ),
        ({"watch": [3]}, ToolshedError, r"^Expected a watch to be a function, got int 3\.$"),
        ({"window": 0}, DataError, r"^window is 0; expected a whole number from 1\.$"),
        ({"window": 1.5}, DataError, r"^window is 1\.5; expected a whole number from 1\.$"),
    ],
)
def test_a_wrong_watch_is_an_error_before_the_first_step(options, kind, message):
    calls: list[int] = []

    def loss_fn(**arguments: Any) -> Any:
        calls.append(1)
        return zoo.regression_loss(**arguments)

    trainer = Trainer(zoo.mlp().model, optax.sgd(0.1), loss_fn)
    with pytest.raises(kind, match=message):
        trainer.fit(trainer.init(jax.random.key(0)), stream(), steps=2, **options)
    assert not calls


def test_values_of_single_leaves_can_be_monitored():
    state = start()
    leaves = [f"grads/{path}" for path in state.params]
    by_leaf = Norm("grads/**", per_leaf=True, leaves=leaves)
    trainer = Trainer(zoo.mlp().model, injected(), zoo.regression_loss, metrics=collection(norm=by_leaf))
    best = KeepBest(f"train/norm/{leaves[0]}")
    trainer.fit(trainer.init(jax.random.key(1)), stream(), steps=2, window=1, watch=best)
    assert best.best > 0


def test_a_value_that_is_an_array_cannot_be_monitored():
    with pytest.raises(
        ToolshedError, match=r"^KeepBest monitors 'm', which is float64\[2\]; expected a metric"
    ):
        KeepBest("m")(1, {"m": np.zeros(2)}, start())


def test_data_of_unknown_length_needs_a_window():
    with pytest.raises(DataError, match=r"^How many steps is a window\? generator does not tell its number"):
        trainer().fit(start(), (batch for batch in stream()), watch=KeepBest("train/loss"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping("loss", patience=0), r"^patience is 0; expected a whole number from 1\.$"),
        (
            lambda: EarlyStopping("loss", patience=1, mode="less"),
            r"^mode is 'less'; expected 'min' or 'max'\.$",
        ),
        (lambda: KeepBest("loss", min_delta=-1), r"^min_delta is -1; expected a number from 0\.$"),
        (lambda: ReduceOnPlateau("loss", patience=1, factor=2), r"^factor is 2; expected a number between 0"),
    ],
)
def test_wrong_settings_are_errors_at_once(make, message):
    with pytest.raises(ToolshedError, match=message):
        make()
