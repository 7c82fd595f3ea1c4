"""Back, forth and onto branches: every state and every value that there was stays within reach."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.small import (
    LENGTH,
    clean,
    data,
    events_of,
    is_clean,
    new_run,
    params_of,
    slow_stream,
    trainer,
    until,
    values,
)
from tests.training.by_hand import differing, new_state
from toolshed.errors import HistoryError, RunError
from toolshed.run import timeline
from toolshed.run.timeline import size_of

STATE_BYTES = 3 * 49 * 4
"""Parameters and both moments of adam, without the few bytes of its counts and hyperparameters."""


def test_steps_are_gone_back_and_forth():
    run = new_run()
    run.train(9, wait=True)
    for go, step in (
        (lambda: run.back(), 8),
        (lambda: run.back(5), 3),
        (lambda: run.goto(7), 7),
        (lambda: run.goto(0), 0),
        (lambda: run.goto(9), 9),
        (lambda: run.goto(9), 9),
    ):
        go()
        assert (run.progress.step, int(run.state.step)) == (step, step)
        assert is_clean(run)
        assert run.data_position["position"] == step
    assert run.history.branch == "main"
    assert list(values(run, "train/loss")) == list(range(1, 10))
    moved = events_of(run, "moved")
    assert moved[0].text == "went from step 9 to step 8"
    assert moved[0].data == {"from": 9, "to": 8}


def test_training_in_the_background_is_paused_before_going_back():
    run = new_run(slow_stream())
    run.train(1000, wait=False)
    until(lambda: run.progress.step > 6)
    run.goto(4)
    assert (run.status, run.progress.step) == ("paused", 4)
    assert is_clean(run)
    run.train(3, wait=True)
    assert is_clean(run)
    assert run.progress.branch == "main-2"


def test_branches_keep_what_was_on_them():
    run = new_run(seed=0, eval_data=list(data()), eval_every=4)
    run.train(8, wait=True)
    first = params_of(run)
    run.goto(3)
    run.edit(learning_rate=0.1)
    run.train(9, wait=True)
    second = params_of(run)
    run.fork("third")
    run.train(2, wait=True)
    branches = {branch.name: (branch.parent, branch.start) for branch in run.history.branches}
    assert branches == {"main": (None, 0), "main-2": ("main", 3), "third": ("main-2", 12)}
    old, new = values(run, "train/loss", "main"), values(run, "train/loss", "main-2")
    assert list(old) == list(range(1, 9))
    assert list(new) == list(range(1, 13))
    assert [step for step in range(1, 9) if old[step] != new[step]] == [5, 6, 7, 8]
    assert list(values(run, "train/loss", "third")) == list(range(1, 15))
    assert list(values(run, "eval/loss", "main")) == [4, 8]
    assert list(values(run, "eval/loss", "main-2")) == [4, 8, 12]
    assert values(run, "eval/loss", "main")[4] != values(run, "eval/loss", "main-2")[4]
    for name, step, params in (("main", 8, first), ("main-2", 12, second)):
        run.goto(step, name)
        assert differing(params_of(run), params) == []
        assert run.progress.branch == name
    frame = run.history.to_pandas(long=True)
    assert set(frame["branch"]) == {"main", "main-2", "third"}
    begun = events_of(run, "branched")
    assert begun[0].text == "main-2 begins at step 3 of main"
    assert begun[1].data == {"name": "third", "parent": "main-2"}


def test_a_fork_at_the_end_changes_nothing_but_the_name():
    run = new_run()
    run.train(4, wait=True)
    run.fork()
    assert run.progress.branch == "main-2"
    run.fork()
    assert run.progress.branch == "main-3"
    run.train(3, wait=True)
    assert is_clean(run)
    assert values(run, "train/loss", "main") == dict(list(values(run, "train/loss").items())[:4])


def test_a_branch_of_a_branch_goes_back_through_all_of_its_ancestors():
    run = new_run(snapshot_every=2)
    run.train(10, wait=True)
    for back in (2, 3, 4):
        run.back(back)
        run.train(5, wait=True)
    assert [branch.name for branch in run.history.branches] == ["main", "main-2", "main-3", "main-4"]
    assert run.progress.step == 16
    for step in (15, 12, 11, 9, 4, 0, 16):
        run.goto(step, "main-4")
        assert is_clean(run)
    assert list(values(run, "train/loss", "main-4")) == list(range(1, 17))


@pytest.mark.parametrize(
    ("go", "message"),
    [
        (
            lambda run: run.goto(9),
            r"^Step 9 has not been made on the branch 'main', which ends at step 6\. run\.train\(steps\)",
        ),
        (
            lambda run: run.goto(7),
            r"ends at step 6\. It is on longer: run\.goto\(7, 'longer'\)\.$",
        ),
        (lambda run: run.goto(-1), r"^step is -1; expected a whole number from 0\.$"),
        (lambda run: run.back(7), r"^This run begins at step 0; there is no step -1 in it\.$"),
        (lambda run: run.goto(2, "mian"), r"^There is no branch 'mian'; there are main, longer\.$"),
        (lambda run: run.explain(0), r"^step is 0; expected a whole number from 1\.$"),
        (lambda run: run.explain(9), r"^Step 9 has not been made on the branch 'main'"),
        (lambda run: run.fork("longer"), r"^There is a branch 'longer' already; choose another name\.$"),
        (lambda run: run.fork(""), r"^A branch is to be called ''; expected a name in one line\.$"),
        (lambda run: run.fork("two\nlines"), r"expected a name in one line\.$"),
        (lambda run: run.fork(3), r"^A branch is to be called 3; expected a name in one line\.$"),
    ],
)
def test_where_there_is_no_step_the_run_stays_where_it_is(go: Any, message: str):
    run = new_run()
    run.train(6, wait=True)
    run.fork("longer")
    run.train(2, wait=True)
    run.goto(6, "main")
    with pytest.raises(RunError, match=message):
        go(run)
    assert (run.progress.step, run.progress.branch) == (6, "main")
    assert is_clean(run)
    with pytest.raises(HistoryError, match="There is no branch 'mian'"):
        run.history.series("train/loss", "mian")


# --- explaining -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 10])
def test_explaining_a_step_is_making_it_by_hand(step: int):
    run = new_run()
    run.train(10, wait=True)
    state = trainer().init(jax.random.key(0))
    for number in range(step):
        state, by_hand = trainer().step(state, data()[number % LENGTH])
    context = run.explain(step)
    assert set(context.filled) == set(by_hand.filled)
    for field in ("step", "batch", "params", "opt_state", "grads", "updates", "aux", "preds", "loss_total"):
        assert differing({field: context[field]}, {field: by_hand[field]}) == [], field
    np.testing.assert_array_equal(jax.random.key_data(context.rng), jax.random.key_data(by_hand.rng))
    assert run.progress.step == 10
    assert is_clean(run)


def test_a_step_of_another_branch_is_explained_with_its_own_values():
    run = new_run()
    run.train(6, wait=True)
    run.goto(3)
    run.edit(learning_rate=0.1)
    run.train(3, wait=True)
    assert float(run.explain(6, "main").loss_total) == values(run, "train/loss", "main")[6]
    assert float(run.explain(6).loss_total) == values(run, "train/loss", "main-2")[6]
    at_start = run.explain(3)  # the step that led to the branch is its parent's
    assert float(at_start.loss_total) == values(run, "train/loss", "main")[3]
    assert run.progress.step == 6


def test_dropout_is_drawn_again_as_it_was():
    case = zoo.dropout_mlp()
    run = toolshed.Run(case.model, optax.sgd(0.01), case.loss_fn, list(data()))
    context = run.step(4)
    run.train(3, wait=True)
    again = run.explain(4)
    assert (
        differing({"grads": again.grads, "aux": again.aux}, {"grads": context.grads, "aux": context.aux})
        == []
    )
    assert float(again.loss_total) != float(run.explain(5).loss_total)


# --- snapshots --------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [0, 1, 3, 100])
def test_snapshots_keep_to_their_budget_and_every_step_stays_within_reach(states: int):
    budget = int(states * 1.3 * STATE_BYTES)
    run = new_run(snapshot_every=2, snapshot_bytes=budget)
    run.train(40, wait=True)
    progress = run.progress
    assert progress.snapshot_budget == budget  # where the device is the host there is nothing to move to
    kept = progress.snapshot_bytes
    one = kept / len(run.timeline.here.snapshots)
    assert STATE_BYTES < one < 1.3 * STATE_BYTES
    assert kept <= max(budget, 2.01 * one)  # the first and the newest stay
    for step in (40, 1, 23, 0, 40):
        run.goto(step)
        assert is_clean(run)
    assert f"snapshots take {kept / 1e6:,.1f} of {budget / 1e6:,.0f} MB" in repr(run.timeline)


def test_states_that_watches_give_keep_to_the_budget_and_what_is_lost_with_them_is_said():
    def halve(step: int, values: Any, state: Any) -> Any:
        return state.replace(params=jax.tree.map(lambda leaf: leaf / 2, state.params))

    run = new_run(eval_every=2, snapshot_bytes=int(4.5 * 1.15 * STATE_BYTES))
    seen = [params_of(run)]
    for _ in range(10):
        run.train(2, watch=halve, wait=True)
        seen.append(params_of(run))
    assert run.progress.snapshot_bytes <= run.progress.snapshot_budget
    for step in (20, 16, 18, 0, 20):
        run.goto(step)
        assert differing(params_of(run), seen[step // 2]) == []
    with pytest.raises(
        RunError,
        match=r"^Step 7 cannot be made again: a watch gave another state at step 6, and its snapshot was "
        r"dropped to keep all of them within 0 MB\. Make the run with a larger snapshot_bytes",
    ):
        run.goto(7)
    assert run.progress.step == 20
    run.goto(1)  # before the first of them
    run.goto(20)
    assert differing(params_of(run), seen[10]) == []


def test_on_an_accelerator_older_snapshots_move_to_the_host_and_come_back_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(timeline, "_is_on_cpu", lambda state: False)  # all else is as it is there
    budget = int(2.5 * 1.15 * STATE_BYTES)
    run = new_run(snapshot_every=2, snapshot_bytes=budget)
    run.train(12, wait=True)
    for _ in range(3):
        run.back(5)
        run.train(6, wait=True)
    assert run.progress.snapshot_budget == 5 * budget
    assert run.timeline.device_bytes <= budget < run.timeline.nbytes <= 5 * budget
    assert sum(part.snapshots[0].on_host for part in run.timeline.segments.values()) == 4
    for step in (2, 7, 12, 15):
        run.goto(step, "main-4")
        assert is_clean(run)


def test_newer_snapshots_lie_denser_than_older_ones():
    run = new_run(snapshot_every=1, snapshot_bytes=int(8.5 * 1.15 * STATE_BYTES))
    run.train(200, wait=True)
    steps = [snapshot.step for snapshot in run.timeline.here.snapshots]
    gaps = np.diff(steps)
    assert 5 <= len(steps) <= 9
    assert (steps[0], steps[-1]) == (0, 200)
    assert gaps[-1] < gaps[0]


def test_the_timeline_shows_branches_edits_and_what_snapshots_take():
    run = new_run(snapshot_every=5)
    run.train(12, wait=True)
    run.goto(7)
    run.edit(learning_rate=0.2)
    run.train(1, wait=True)
    shown = repr(run.timeline).splitlines()
    assert shown[0] == "Timeline"
    assert shown[1] == "  main: from 0 to 12; 0 edits; snapshots at 0, 5, 10"
    assert shown[2] == "→ main-2: from main at step 7 to 8; 1 edits; snapshots at 7"
    assert shown[3].startswith("  snapshots take 0.0 of ")


def test_metrics_count_in_the_size_of_a_snapshot():
    area = toolshed.metrics.collection(area=toolshed.metrics.AUCROC("preds", "batch/y", capacity=1000))
    small, large = new_state(zoo.mlp()), new_state(zoo.mlp(), metrics=area)
    difference = size_of(large) - size_of(small)
    assert difference == sum(leaf.nbytes for leaf in jax.tree.leaves(area.states)) > 8000


def test_the_clean_run_moves():
    assert differing(clean()[3], clean()[4]) != []
