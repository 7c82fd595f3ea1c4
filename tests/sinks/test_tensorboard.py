"""TensorBoard reads what a run has: each value once, each branch as a run of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolshed
from tests.run.kept import data, trainer
from toolshed.sinks import TensorBoard

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TRAINER = trainer()


def finish(run: toolshed.Run) -> None:
    """What the end of a script does."""
    for follower in run._followers:
        follower.finish()


def scalars(folder: Path) -> dict[str, tuple[list[int], list[float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    found = {tag: reader.Scalars(tag) for tag in reader.Tags()["scalars"]}
    return {
        tag: ([one.step for one in values], [one.value for one in values]) for tag, values in found.items()
    }


def test_tensorboard_reads_what_the_run_has(tmp_path):
    run = toolshed.Run(TRAINER, data(), name="a run/..", sinks=[TensorBoard(tmp_path)])
    run.train(5, wait=True)
    time.sleep(0.6)
    run.train(5, wait=True)
    run.goto(6)
    run.train(3, wait=True)
    finish(run)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "a-run"
    for branch, where in (("main", folder), ("main-2", folder / "main-2")):
        found = scalars(where)
        for name in ("train/loss", "optim/learning_rate"):
            steps, values = run.history.series(name, branch, own=True)
            assert found[name][0] == steps.tolist()
            np.testing.assert_array_equal(np.asarray(found[name][1], np.float32), values)
    again = toolshed.Run(TRAINER, data(), name="a run/..", sinks=[TensorBoard(tmp_path)])
    again.train(1, wait=True)
    finish(again)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a-run", "a-run-2"]


class Failing:
    """A sink that takes one batch."""

    def __init__(self) -> None:
        self.taken = 0

    def open(self, name: str) -> None: ...

    def write(self, news: Any) -> None:
        self.taken += 1
        if self.taken > 1:
            raise OSError("the server is gone")

    def close(self) -> None: ...


def test_a_sink_that_fails_is_shown_and_dropped(capsys):
    sink = Failing()
    run = toolshed.Run(TRAINER, data(), sinks=[sink])
    run.train(3, wait=True)
    deadline = time.monotonic() + 20
    while not any(event.kind == "error" for event in run.events):
        assert time.monotonic() < deadline
        run.train(1, wait=True)
        time.sleep(0.05)
    (failure,) = [event for event in run.events if event.kind == "error"]
    assert failure.text == "Failing failed and is told nothing more: OSError: the server is gone"
    run.train(3, wait=True)
    time.sleep(0.7)
    assert sink.taken == 2
    assert run.status == "finished"
    assert "Training goes on." in capsys.readouterr().err


def test_without_tensorboard_the_run_goes_on_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    run = toolshed.Run(TRAINER, data(), sinks=[TensorBoard(tmp_path)])
    run.train(2, wait=True)
    finish(run)
    (failure,) = [event for event in run.events if event.kind == "error"]
    assert "TensorBoard is not installed: pip install 'jax-toolshed[tensorboard]'." in failure.text
