"""A run that was kept goes on: its bits, its values, its branches; and what does not fit is said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest

import toolshed
from tests.run.kept import bits, data, let_go, table, trainer
from toolshed.errors import (
    CheckpointDamagedError,
    CheckpointMismatchError,
    CheckpointWarning,
    DataError,
    EnvironmentWarning,
    OptimizerWarning,
    RepositoryLockedError,
    RunError,
    StoreError,
)
from toolshed.run import SavedRun

TRAINER = trainer()


def begin(root: Path, **options: Any) -> toolshed.Run:
    return toolshed.Run(TRAINER, data(), store=root, name="one", **{"checkpoint_every": 0, **options})


def again(root: Path, **options: Any) -> toolshed.Run:
    return toolshed.attach("one", TRAINER, data(), path=root, **{"checkpoint_every": 0, **options})


def reference(steps: int, edits: dict[int, float]) -> toolshed.Run:
    """The same training without an end in the middle."""
    run = toolshed.Run(TRAINER, data())
    for step, rate in edits.items():
        run.train(step - run.progress.step, wait=True)
        run.edit(learning_rate=rate)
    run.train(steps - run.progress.step, wait=True)
    return run


def test_what_comes_after_the_checkpoint_is_made_again_to_the_same_bits(tmp_path):
    run = begin(tmp_path)
    run.train(20, wait=True)
    run.edit(learning_rate=3e-3)
    run.save("here", wait=True)
    run.train(15, wait=True)
    run.edit(learning_rate=5e-3)
    run.train(5, wait=True)
    run.wait()
    assert run._durable is not None
    run._durable.saves.finish()
    run.checkpoints.delete(35)  # as if the process had been killed before the ends of trainings were saved
    run.checkpoints.delete(40)
    let_go(run)

    resumed = again(tmp_path)
    assert resumed.progress.step == 20
    assert (resumed.status, resumed.progress.goal) == ("paused", 40)
    assert [event.kind for event in resumed.events if event.kind == "edited"] == ["edited"]
    assert (
        "goes on from the checkpoint of step 20; the 20 steps after it are made again"
        in resumed.progress.message
    )
    assert resumed.history.last("train/loss")[0] == 20
    resumed.train(40, wait=True)
    alone = reference(60, {20: 3e-3, 35: 5e-3})
    assert bits(resumed.state) == bits(alone.state)
    assert table(resumed.history) == table(alone.history)
    assert [event.step for event in resumed.events if event.kind == "edited"] == [20, 35]
    resumed.save(wait=True)
    assert table(SavedRun(tmp_path / "one").history) == table(alone.history)
    other = reference(60, {20: 3e-3})
    assert bits(resumed.state) != bits(other.state)  # the edit at step 35 did matter


def test_a_kill_right_after_an_attach_takes_no_event_with_it(tmp_path, monkeypatch):
    from toolshed.store import Store

    run = begin(tmp_path)
    run.train(4, wait=True)
    run.edit(learning_rate=3e-3)
    run.save(wait=True)  # after everything that came before it is written
    let_go(run)
    before = SavedRun(tmp_path / "one").events[:1]
    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", lambda self, news: None)  # it is killed before it writes anything
        let_go(again(tmp_path))
    assert [event.kind for event in before] == ["edited"]
    assert SavedRun(tmp_path / "one").events[:1] == before
    assert again(tmp_path).events[:1] == before


def test_an_edit_by_hand_takes_the_place_of_those_that_were_to_be_made_again(tmp_path):
    run = begin(tmp_path)
    run.train(5, wait=True)
    run.save(wait=True)
    run.train(5, wait=True)
    run.edit(learning_rate=5e-3)
    run.train(5, wait=True)
    run.save(wait=True)
    for step in (10, 15):
        run.checkpoints.delete(step)
    let_go(run)
    resumed = again(tmp_path)
    assert resumed.progress.step == 5
    resumed.edit(learning_rate=7e-3)
    resumed.train(10, wait=True)
    assert bits(resumed.state) == bits(reference(15, {5: 7e-3}).state)


def test_a_run_goes_on_to_its_goal_and_back_to_its_checkpoints(tmp_path):
    run = begin(tmp_path, checkpoint_every=10)
    run.train(30, wait=True)
    losses = table(run.history)
    run.goto(20)
    at_20 = bits(run.state)
    run.goto(30)
    run.save(wait=True)
    run._control.goal = 50
    run._control.say("paused")
    run._durable._keeper.sync()  # what is said in the last second before a kill may be lost
    let_go(run)

    resumed = again(tmp_path)
    assert (resumed.progress.step, resumed.progress.goal, resumed.status) == (30, 50, "paused")
    assert table(resumed.history) == losses
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.goto(23)  # from the checkpoint of step 20, on the disk
        resumed.goto(20)
    assert bits(resumed.state) == at_20
    resumed.goto(30)
    resumed.train(20, wait=True)
    assert bits(resumed.state) == bits(reference(50, {}).state)
    assert resumed.history.branch == "main"


def test_branches_come_back(tmp_path):
    run = begin(tmp_path)
    run.train(12, wait=True)
    run.goto(6)
    run.edit(learning_rate=1e-3)
    run.train(8, wait=True)
    run.save(wait=True)
    main, branch, end = table(run.history, "main"), table(run.history), bits(run.state)
    assert run.history.branch == "main-2"
    let_go(run)
    resumed = again(tmp_path)
    assert bits(resumed.state) == end
    assert resumed.history.branch == resumed.timeline.current == "main-2"
    assert resumed.history.branches == run.history.branches
    assert table(resumed.history) == branch
    assert table(resumed.history, "main") == main
    assert [event.kind for event in resumed.events[:3]] == ["moved", "branched", "edited"]
    resumed.train(3, wait=True)
    assert resumed.history.last("train/loss")[0] == 17


def test_without_a_checkpoint_the_run_begins_again(tmp_path):
    run = begin(tmp_path)
    assert run.folder == tmp_path / "one"
    let_go(run)
    with pytest.warns(CheckpointWarning, match="one has no checkpoint yet: it begins again"):
        resumed = again(tmp_path)
    resumed.train(5, wait=True)
    assert bits(resumed.state) == bits(reference(5, {}).state)


def test_a_damaged_checkpoint_is_stepped_over_and_none_whole_is_an_error(tmp_path):
    run = begin(tmp_path)
    run.train(5, wait=True)
    run.save(wait=True)
    let_go(run)
    folders = sorted(
        (tmp_path / "one" / "checkpoints" / "steps").iterdir(), key=lambda one: one.stat().st_mtime
    )
    (folders[-1] / "manifest.json").write_text("{}")
    with pytest.warns(CheckpointWarning, match="Loaded step 0, as what is newer cannot be loaded"):
        resumed = again(tmp_path)
    assert resumed.progress.step == 0
    let_go(resumed)
    for folder in folders:
        (folder / "manifest.json").write_text("{}")
    with pytest.raises(CheckpointDamagedError):
        again(tmp_path)


def test_what_does_not_fit_is_named(tmp_path):
    run = begin(tmp_path)
    run.train(3, wait=True)
    run.save(wait=True)
    let_go(run)
    with pytest.raises(
        RunError, match=r"Code is not kept with a run: pass what it is made of.*runs\(\)\['one'\]"
    ):
        toolshed.attach("one", path=tmp_path)
    with pytest.raises(RunError, match="attach has no option 'store'; there are eval_every"):
        again(tmp_path, store="x")
    with pytest.raises(StoreError, match=r"There is no run 'two'\."):
        toolshed.attach("two", TRAINER, data(), path=tmp_path)
    with pytest.raises(
        DataError, match=r"The data do not fit the run\. The saved position is of another stream"
    ):
        toolshed.attach("one", TRAINER, data(seed=1), path=tmp_path)
    with pytest.raises(CheckpointMismatchError, match="opt_state"):
        toolshed.attach("one", trainer(optax.sgd(1e-2, momentum=0.9)), data(), path=tmp_path)
    other = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2, nesterov=True)
    with pytest.warns(OptimizerWarning, match="was saved with the optimizer"):
        resumed = toolshed.attach("one", trainer(other), data(), path=tmp_path)
    let_go(resumed)
    resumed = again(tmp_path)
    assert resumed.progress.step == 3


def test_other_versions_are_said(tmp_path, monkeypatch):
    from toolshed.checkpoints import environment

    run = begin(tmp_path)
    run.train(3, wait=True)
    run.save(wait=True)
    let_go(run)
    version = environment._version
    monkeypatch.setattr(environment, "_version", lambda name: "0.0.1" if name == "optax" else version(name))
    with pytest.warns(EnvironmentWarning, match="optax .*, now 0.0.1: training does not go on bit for bit"):
        again(tmp_path)


def test_a_run_of_this_process_gives_way_unless_it_trains(tmp_path):
    run = begin(tmp_path)
    run.train(3, wait=True)
    run.train(until=lambda step, values: False, wait=False)
    with pytest.raises(RunError, match=r"one trains in this process\. run\.stop\(\) and run\.wait\(\) first"):
        again(tmp_path)
    run.stop()
    run.wait()
    with pytest.raises(DataError):
        toolshed.attach("one", TRAINER, data(seed=1), path=tmp_path)
    assert run.can_save  # what failed took nothing away
    resumed = again(tmp_path)
    assert resumed.progress.step == run.progress.step
    assert not run.can_save
    assert run.events[-1].text == "one is kept by another run now; this one is kept nowhere"
    assert bits(resumed.state) == bits(run.state)


def test_a_run_of_another_process_is_not_taken_over(tmp_path):
    from toolshed.checkpoints.lock import Lock

    run = begin(tmp_path)
    run.train(3, wait=True)
    let_go(run)
    lock = Lock(tmp_path / "one" / "lock")  # a lock of its own is like another process's
    lock.acquire()
    with pytest.raises(RepositoryLockedError, match=r"one is being written by process"):
        again(tmp_path)
    lock.release()
    assert again(tmp_path).progress.step == 3


def test_options_are_what_they_were(tmp_path):
    run = begin(tmp_path, eval_every=4, eval_data=[next(iter(data()))], norms_every=2, check_finite=False)
    run.train(8, wait=True)
    let_go(run)
    resumed = again(tmp_path, eval_data=[next(iter(data()))])
    resumed.train(8, wait=True)
    assert resumed.history.series("eval/loss").steps.tolist() == [4, 8, 12, 16]
    assert resumed.history.series("optim/grad_norm").steps.tolist() == list(range(1, 17, 2))
    let_go(resumed)
    other = again(tmp_path, eval_every=5, eval_data=[next(iter(data()))])
    other.train(4, wait=True)
    assert other.history.last("eval/loss")[0] == 20


def test_a_long_history_comes_back(tmp_path):
    run = begin(tmp_path)
    steps = np.arange(1, 200_001)
    run.history.append("train/loss", steps, np.sqrt(steps))
    assert run._durable is not None
    run._durable._keeper.sync()
    history = SavedRun(tmp_path / "one").history
    assert history.series("train/loss").steps.tolist() == steps.tolist()
    assert history.window("train/loss", 0, 200_000, 100).low[0] == 1.0
