"""A sink is told how a run was made and each thing once; one that hangs stops neither the run nor its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import toolshed
from tests.run.kept import data, let_go, trainer
from tests.run.test_keeping import until
from toolshed.run import following

TRAINER = trainer()
ROOT = Path(__file__).parents[2]


class Taking:
    """A sink that keeps what it is told, after as long as its latch says."""

    def __init__(self, held: threading.Event | None = None):
        self.news: list[Any] = []
        self.is_closed = False
        self._held = held

    def open(self, name: str) -> None:
        self.name = name

    def write(self, news: Any) -> None:
        if self._held is not None:
            self._held.wait(60)
        self.news.append(news)

    def close(self) -> None:
        self.is_closed = True

    def steps(self, name: str) -> list[int]:
        blocks = [block for news in self.news for block in news.blocks if block.name == name]
        return [step for block in blocks for step in block.steps.tolist()]

    def events(self) -> list[Any]:
        return [event for news in self.news for event in news.events]


def finish(run: toolshed.Run, patience: float = 20.0) -> None:
    for follower in run._followers:
        follower.finish(patience)


def test_a_sink_is_told_how_the_run_was_made_and_each_thing_once():
    sink = Taking()
    run = toolshed.Run(TRAINER, data(), name="mine", sinks=[sink], config={"width": 8})
    run.train(20, wait=True)
    run.edit(learning_rate=1e-3)
    run.train(20, wait=True)
    finish(run)
    assert (sink.name, sink.is_closed) == ("mine", True)
    assert sink.steps("train/loss") == list(range(1, 41))
    assert [event.kind for event in sink.events()] == ["edited"]
    for news in sink.news:
        assert news.facts["name"] == "mine"
        assert news.facts["config"]["config"] == {"width": 8}
        assert news.facts["config"]["parameters"] == 49


def test_data_that_cannot_be_shown_need_not_be_where_nobody_is_told():
    class Unshown(list):
        def __repr__(self) -> str:
            raise RuntimeError("never")

    toolshed.Run(TRAINER, Unshown(data()))
    with pytest.raises(RuntimeError, match="never"):
        repr(Unshown())


def test_a_sink_of_a_run_that_was_attached_to_is_told_of_its_past_too(tmp_path):
    run = toolshed.Run(TRAINER, data(), store=tmp_path, name="one", config={"width": 8})
    run.train(6, wait=True)
    run.edit(learning_rate=1e-3)
    run.save(wait=True)
    let_go(run)
    sink = Taking()
    resumed = toolshed.attach("one", TRAINER, data(), path=tmp_path, sinks=[sink])
    resumed.train(3, wait=True)
    finish(resumed)
    assert sink.steps("train/loss") == list(range(1, 10))
    assert sink.events()[0].kind == "edited"
    assert sink.news[0].facts["config"]["config"] == {"width": 8}


def test_a_sink_that_hangs_is_shown_once_and_left_behind_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(following, "_SLOW", 0.2)
    held = threading.Event()
    hung, other = Taking(held), Taking()
    run = toolshed.Run(TRAINER, data(), name="mine", sinks=[hung, other])
    run.train(until=lambda step, values: False, wait=False)
    assert until(lambda: any("Taking has taken nothing" in event.text for event in run.events), 10)
    before = run.progress.step
    assert until(lambda: run.progress.step > before + 50, 10)
    run.stop()
    run.wait()
    begun = time.monotonic()
    finish(run, 0.3)
    assert time.monotonic() - begun < 5
    told = [event.text for event in run.events if event.kind == "note"]
    assert told == ["Taking has taken nothing for 0 s. Training goes on."]
    assert "Taking was not done in time: it may lack the last values of mine." in capsys.readouterr().err
    assert (hung.news, hung.is_closed, other.is_closed) == ([], False, True)
    assert other.steps("train/loss") == list(range(1, run.progress.step + 1))
    held.set()


SCRIPT = """
import sys, time
from tests.run.kept import data, trainer
import toolshed
from toolshed.run import following

following._PATIENCE = 0.5

class Hung:
    def open(self, name): print("told", name, flush=True)
    def write(self, news): time.sleep(600)
    def close(self): print("closed", flush=True)

run = toolshed.Run(trainer(), data(), name="mine", sinks=[Hung()])
run.train(50, wait=True)
time.sleep(1)
print("status", run.status, time.time(), flush=True)
"""


def test_a_process_whose_sink_hangs_comes_to_its_end():
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120
    )
    assert time.time() - float(done.stdout.split()[-1]) < 5
    assert done.returncode == 0, done.stderr
    assert "told mine" in done.stdout
    assert "status finished" in done.stdout
    assert "closed" not in done.stdout
    assert "Hung was not done in time: it may lack the last values of mine." in done.stderr
