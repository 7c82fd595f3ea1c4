"""The search for a learning rate: where the loss falls, and that nothing changes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, new_state, values_of
from toolshed.errors import RunError
from toolshed.run.rates import _found


def regression(optimizer: Any = None) -> tuple[zoo.Case, Any]:
    return zoo.mlp(), optimizer or optax.inject_hyperparams(optax.sgd)(learning_rate=1e-3)


def new_run(optimizer: Any = None) -> toolshed.Run:
    case, optimizer = regression(optimizer)
    examples = {k: np.concatenate([b[k] for b in batches(case, 6)]) for k in case.batch}
    data = toolshed.data.from_arrays(examples, batch_size=8, seed=3)
    return toolshed.Run(case.model, optimizer, case.loss_fn, data, eval_every=4)


def test_the_losses_are_those_of_a_training_by_hand():
    case, optimizer = regression()
    data = batches(case, 3)
    found = toolshed.lr_find(
        toolshed.Trainer(case.model, optimizer, case.loss_fn), data, state=new_state(case, optimizer),
        low=1e-4, high=1e-1, steps=7,
    )  # fmt: skip
    np.testing.assert_allclose(found.rates, [1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1])
    step = toolshed.build_train_step(case.loss_fn)
    state = new_state(case, optimizer)
    for rate, loss, batch in zip(found.rates, found.losses, (*data, *data, *data), strict=False):
        state.opt_state.hyperparams["learning_rate"] = jnp.float32(rate)
        state, context = step(state, batch)
        assert loss == pytest.approx(float(context.loss_total), rel=1e-5)


def test_rates_that_are_too_large_end_the_search():
    case, optimizer = regression()
    trainer = toolshed.Trainer(case.model, optimizer, case.loss_fn)
    data = batches(case, 3)
    found = toolshed.lr_find(trainer, data, low=1e-4, high=1e6, steps=100)
    assert found.diverged
    assert len(found.rates) < 100
    assert found.suggested is not None
    assert found.lowest is not None
    assert found.suggested < found.lowest < found.rates[-1]
    assert "diverges" in repr(found)
    tame = toolshed.lr_find(trainer, data, low=1e-6, high=1e-4, steps=10)
    assert not tame.diverged
    assert len(tame.rates) == 10


def test_the_suggestion_by_hand():
    rates = np.geomspace(1e-4, 1, 101)
    losses = 1 - 1 / (1 + np.exp(-(np.arange(101) - 40) / 4))  # falls from 1 to 0, most steeply at the 40th
    found = _found(rates, losses.astype(np.float32))
    assert found.suggested == pytest.approx(rates[40], rel=0.1)
    assert not found.diverged
    rising = _found(rates, np.linspace(1, 2, 101, dtype=np.float32))
    assert rising.suggested is None
    assert "the loss never falls" in repr(rising)
    gone = _found(rates[:3], np.array([np.nan, np.inf, np.nan], np.float32))
    assert (gone.suggested, gone.lowest, gone.diverged) == (None, None, True)


def test_a_loss_that_is_not_finite_is_kept_and_left_out_of_the_curve():
    found = _found(np.geomspace(1e-3, 1, 4), np.array([3, 2, np.nan, np.inf], np.float32))
    assert np.isnan(found.smoothed).tolist() == [False, False, True, True]
    assert found.diverged


def everything(run: toolshed.Run) -> Any:
    """All that a run is, as plain values."""
    history = run.history
    series = {name: [x.tolist() for x in history.series(name)] for name in ("train/loss",)}
    return repr(run.data_position), series, history.branches, run.events, run.status, run.progress.message


@pytest.mark.parametrize("experiment", ["lr_find", "what_if", "what_if, one by one"])
def test_a_run_is_as_it_was_and_goes_on_as_if_nothing_had_been(experiment):
    run, other = new_run(), new_run()
    for one in (run, other):
        one.train(7, wait=True)
    before, state = everything(run), values_of(run.state)
    if experiment == "lr_find":
        toolshed.lr_find(run, steps=12, high=1e3)
    else:
        toolshed.what_if(run, 5, learning_rate=[0.0, 1e6], at_once=experiment == "what_if")
    assert everything(run) == before
    assert differing(values_of(run.state), state) == []
    for one in (run, other):
        one.train(6, wait=True)
    assert differing(values_of(run.state), values_of(other.state)) == []
    assert (
        run.history.series("train/loss").values.tolist() == other.history.series("train/loss").values.tolist()
    )
    assert np.isfinite(run.history.series("train/loss").values).all()


def test_a_training_in_the_background_goes_on_afterwards():
    run = new_run()
    run.train(2000, wait=False)
    found = toolshed.lr_find(run, steps=10, low=1e-5, high=1e-3)
    assert len(found.losses) == 10
    run.wait()
    assert int(run.state.step) == 2000


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: toolshed.lr_find(new_run(), low=1.0, high=0.1),
            r"^lr_find got low=1\.0, high=0\.1, steps=100",
        ),
        (lambda: toolshed.lr_find(new_run(), steps=1), r"^lr_find got .* steps=1; expected"),
        (lambda: toolshed.lr_find(3), r"^Expected a Run or a Trainer, got int 3\."),
        (lambda: toolshed.lr_find(new_run(), []), r"^A run has its data and its state"),
        (lambda: toolshed.lr_find(new_run().trainer), r"^A trainer has no data; pass"),
        (
            lambda: toolshed.lr_find(new_run(optax.sgd(0.1))),
            r"^There is no hyperparameter 'learning_rate' .* optax\.inject_hyperparams",
        ),
    ],
)
def test_a_wrong_call_is_an_error_that_says_what_was_expected(call, message):
    with pytest.raises(RunError, match=message):
        call()
