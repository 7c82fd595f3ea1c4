"""A loss that is not finite stops a run, which goes back to the last finite state and tells why."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, values_of
from toolshed.errors import NonFiniteError, RunError
from toolshed.run.finite import bad_leaves


def good_batches(n: int) -> list[dict[str, np.ndarray]]:
    return batches(zoo.mlp(), n)


def new_run(data: Any, loss_fn: Any = zoo.regression_loss, optimizer: Any = None, **options: Any) -> Any:
    return toolshed.Run(zoo.mlp().model, optimizer or optax.adam(1e-3), loss_fn, data, **options)


def with_a_bad_batch(at: int, n: int = 60) -> list[dict[str, np.ndarray]]:
    data = good_batches(n)
    data[at]["x"] = data[at]["x"].copy()
    data[at]["x"][2, 1] = np.inf
    return data


def root_loss(*, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    """The loss, and the root of a number that is 0 in one batch: infinite on the way back alone."""
    loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
    return loss + jnp.sqrt(loss * jnp.abs(x).max()), state, aux


def test_a_bad_batch_stops_the_run_which_goes_back_to_the_state_before_it():
    run = new_run(with_a_bad_batch(at=31))
    with pytest.raises(NonFiniteError) as raised:
        run.train(60, wait=True)
    assert raised.value.step == 32
    assert str(raised.value).startswith("The loss of step 32 is nan. The run went back to step 31.")
    assert "run.autopsy()" in run.progress.message
    assert run.status == "failed"
    assert int(run.state.step) == 31
    assert bad_leaves(run.state) == set()
    clean = new_run(good_batches(60))
    clean.train(31, wait=True)
    assert differing(values_of(run.state), values_of(clean.state)) == []
    assert [event.step for event in run.events if event.kind == "nonfinite"] == [32]


def test_the_autopsy_names_the_batch_that_did_it():
    run = new_run(with_a_bad_batch(at=4, n=10))
    with pytest.raises(NonFiniteError):
        run.train(10, wait=True)
    before = values_of(run.state)
    found = run.autopsy()
    assert found.fault is not None
    assert (found.fault.primitive, found.fault.near, found.fault.index) == ("input", ("batch/x",), (2, 1))
    assert found.step == 5
    assert found.batch is not None
    assert not np.isfinite(found.batch["x"]).all()
    assert repr(found).endswith("\n  step     5")
    assert run.autopsy(4).finite
    assert int(run.state.step) == 4
    assert differing(values_of(run.state), before) == []


def test_gradients_that_are_not_finite_are_traced_to_their_own_step():
    data = good_batches(12)
    data[6] = {name: np.zeros_like(value) for name, value in data[6].items()}
    run = new_run(data, root_loss)
    with pytest.raises(NonFiniteError, match=r"It comes from step 7, whose update is not finite") as raised:
        run.train(12, wait=True)
    assert str(raised.value).startswith("The loss of step 8 is nan. ")
    assert raised.value.step == 7
    assert int(run.state.step) == 6
    fault = run.autopsy().fault
    assert fault is not None
    assert fault.source is not None
    assert "sqrt" in fault.source.text


def test_an_update_that_is_not_finite_is_found_at_the_end_too():
    data = good_batches(7)
    data[6] = {name: np.zeros_like(value) for name, value in data[6].items()}
    run = new_run(data, root_loss)
    message = r"^The update of step 7 is not finite in params/\S+ and 11 more\. The run went back to step 6\."
    with pytest.raises(NonFiniteError, match=message):
        run.train(7, wait=True)
    assert int(run.state.step) == 6
    assert bad_leaves(run.state) == set()
    fault = run.autopsy().fault
    assert fault is not None
    assert fault.source is not None
    assert "sqrt" in fault.source.text
    assert [event.step for event in run.events if event.kind == "nonfinite"] == [7]
    unchecked = new_run(data, root_loss, check_finite=False)
    unchecked.train(7, wait=True)
    assert bad_leaves(unchecked.state)


def test_a_value_that_hides_for_many_steps_is_found_where_it_came_in():
    """The optimiser's state has a NaN from step 9 on that nothing reads, and an infinity from the start."""

    def init(params: Any) -> Any:
        del params
        return {"count": jnp.int32(0), "hidden": jnp.float32(0), "best": jnp.float32(jnp.inf)}

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del params
        hidden = jnp.where(state["count"] >= 8, jnp.float32(jnp.nan), jnp.float32(0))
        return updates, {**state, "count": state["count"] + 1, "hidden": hidden}

    optimizer = optax.chain(optax.GradientTransformation(init, update), optax.sgd(1e-3))
    run = new_run(with_a_bad_batch(at=29), optimizer=optimizer)
    with pytest.raises(NonFiniteError, match=r"It comes from step 9, whose update is not finite"):
        run.train(60, wait=True)
    assert int(run.state.step) == 8


def test_training_goes_on_from_there_on_a_branch_of_its_own():
    run = new_run(with_a_bad_batch(at=5, n=8))
    with pytest.raises(NonFiniteError):
        run.train(8, wait=True)
    run.edit_model(lambda model: model)
    run.train(0, wait=True)
    assert run.status == "finished"
    assert run.autopsy().step == 6  # of the branch that it was made on


def test_a_run_that_is_told_not_to_check_trains_on():
    run = new_run(with_a_bad_batch(at=3, n=10), check_finite=False)
    run.train(10, wait=True)
    assert int(run.state.step) == 10
    with pytest.raises(RunError, match=r"^No value that is not finite has stopped this run\. run\.autopsy"):
        run.autopsy()
    assert run.autopsy(4).fault is not None


def test_data_that_can_be_read_only_forwards_leaves_the_run_where_it_stopped():
    run = new_run(iter(with_a_bad_batch(at=3, n=500)))
    with pytest.raises(NonFiniteError, match=r"^The loss of step 4 is nan\. run\.goto\(3\) goes back"):
        run.train(500, wait=True)
    assert int(run.state.step) > 3
