"""What a run does is on the disk within a second; a disk that fails neither stops it nor loses anything."""

from __future__ import annotations

import gc
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toolshed
from tests.checkpoints.test_disk import full, small_disk
from tests.run.kept import collected, data, table, trainer
from toolshed.errors import CheckpointError, RunError, StoreError
from toolshed.run import SavedRun
from toolshed.run.cursor import Cursor
from toolshed.store.records import ROWS

__all__ = ["collected"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TRAINER = trainer()
SOON = 1.5  # seconds: one, and what it takes to look


def begin(root: Path, **options: Any) -> toolshed.Run:
    return toolshed.Run(TRAINER, data(), **{"store": root, "name": "one", "checkpoint_every": 0, **options})


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return holds()


def is_all_there(run: toolshed.Run, kept: SavedRun) -> bool:
    return table(kept.history) == table(run.history) and kept.events == run.events


def test_values_events_and_facts_are_on_the_disk_within_a_second(tmp_path):
    run = begin(tmp_path, config={"width": 8, "tags": ["a"]}, eval_every=5)
    run.train(20, wait=True)
    run.log("mine/number", 2.5)
    run.edit(learning_rate=1e-3)
    assert until(lambda: is_all_there(run, SavedRun(tmp_path / "one")), SOON)
    kept = SavedRun(tmp_path / "one")
    assert kept.history.last("mine/number") == (20, 2.5)
    assert kept.history.names == run.history.names
    assert (kept.name, kept.status, kept.step) == ("one", "finished", 20)
    assert [event.kind for event in kept.events] == ["edited"]
    assert kept.given == {"width": 8, "tags": ["a"]}
    assert kept.config["parameters"] == 49
    assert kept.config["options"]["eval_every"] == 5
    assert kept.config["optimizer"].startswith("inject_hyperparams(")
    assert kept.environment["devices"]["count"] == 1
    assert kept.facts["edits"] == {"main": [[20, {"learning_rate": 1e-3}]]}
    assert repr(kept) == "SavedRun('one': finished, step 20)"


def test_a_run_without_a_store_leaves_nothing_and_cannot_save(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = toolshed.Run(TRAINER, data())
    run.train(3, wait=True)
    assert list(tmp_path.iterdir()) == []
    assert not run.can_save
    assert run.folder is None
    with pytest.raises(
        RunError, match=r"This run is kept nowhere\. To have it kept, make it with Run\(…, store='runs'\)\."
    ):
        run.save()
    with pytest.raises(RunError, match="This run is kept nowhere"):
        _ = run.checkpoints


def test_runs_of_one_name_have_directories_of_their_own(tmp_path):
    first, second = begin(tmp_path), begin(tmp_path)
    unnamed = begin(tmp_path, name=None)
    assert [run.folder.name for run in (first, second, unnamed)] == ["one", "one-2", "run"]
    assert unnamed.name == "run"


def test_a_place_where_nothing_can_be_kept_is_an_error_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file is a file; expected a directory"):
        begin(tmp_path / "file")
    with pytest.raises(StoreError, match=r"No run can be kept in /proc/nowhere"):
        begin(Path("/proc/nowhere"))
    with pytest.raises(CheckpointError, match="config/x is set"):
        begin(tmp_path, config={"x": {1}})
    with pytest.raises(RunError, match="checkpoint_every is 'often'; expected a number of steps"):
        begin(tmp_path, checkpoint_every="often")
    assert not (tmp_path / "one").exists()


def test_the_directory_may_go_while_a_run_trains_and_is_made_anew(tmp_path, capsys):
    run = begin(tmp_path)
    run.train(10, wait=True)
    run.save("early", wait=True)
    shutil.rmtree(tmp_path / "one")
    run.train(until=lambda step, values: False, wait=False)
    assert until(lambda: any(event.kind == "error" for event in run.events), SOON)
    failure = next(event for event in run.events if event.kind == "error")
    assert failure.text == f"{tmp_path / 'one'} cannot be written: it was removed; it is made anew."
    assert until(lambda: any("is written to again" in event.text for event in run.events), 5)
    assert run.status == "training"
    run.stop()
    run.wait()
    run.save(wait=True)
    kept = SavedRun(tmp_path / "one")
    assert table(kept.history) == table(run.history)
    assert kept.history.series("train/loss").steps[0] == 1
    assert len(kept.events) == len(run.events) - 1  # that of this last save comes after it
    resumed = toolshed.attach("one", TRAINER, data(), path=tmp_path)
    assert resumed.progress.step == run.progress.step
    assert "Training goes on, and what is missing is written later." in capsys.readouterr().err


def test_a_file_in_the_way_is_said_once_and_written_later(tmp_path):
    run = begin(tmp_path)
    run.train(5, wait=True)
    run.save(wait=True)
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "one").touch()  # now a file is where the directory was
    run.train(5, wait=True)

    def told() -> list[str]:
        return [event.text for event in run.events if "cannot be written" in event.text]

    assert until(lambda: told() != [], SOON)
    assert until(lambda: len(told()) == 2, 5)
    time.sleep(1.2)  # it is tried again, and not said again
    assert [text.split(": ")[1] for text in told()] == ["it was removed; it is made anew.", "File exists."]
    (tmp_path / "one").unlink()
    assert until(lambda: any("is written to again" in event.text for event in run.events), 5)
    assert table(SavedRun(tmp_path / "one").history) == table(run.history)


def test_a_step_never_waits_for_the_disk(tmp_path, monkeypatch):
    """The writer is held up for as long as the run trains; the run goes on all the same."""
    from toolshed.store import Store

    held, write = threading.Event(), Store.write

    def slowly(self: Store, news: Any) -> None:
        held.wait(30)
        write(self, news)

    monkeypatch.setattr(Store, "write", slowly)
    run = begin(tmp_path)
    run.train(50, wait=False)
    assert until(lambda: run.progress.step == 50, 20)
    held.set()
    run.wait()
    run.save(wait=True)
    assert SavedRun(tmp_path / "one").history.last("train/loss")[0] == 50


def test_what_is_new_is_told_once_and_blocks_are_aligned():
    history, cursor = toolshed.run.History(), Cursor()
    history.append("a", np.arange(1, ROWS + 11), np.zeros(ROWS + 10))
    news = cursor.news(history, (), {})
    assert [(block.place, len(block.steps)) for block in news.blocks] == [(0, ROWS), (1, 10)]
    assert cursor.news(history, (), {}).blocks != ()  # nobody said yet that it was written
    cursor.wrote(news)
    assert cursor.news(history, (), {}).blocks == ()
    history.append("a", [5000], [1.0])
    (block,) = cursor.news(history, (), {}).blocks
    assert (block.place, len(block.steps), block.steps[-1]) == (1, 11, 5000)
    assert Cursor(history).news(history, (), {}).blocks == ()


def test_a_full_disk_stops_nothing_and_is_written_to_again(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        run = begin(disk)
        run.train(5, wait=True)
        run.save(wait=True)
        with full(disk):
            run.history.append("mine/many", np.arange(1, 100_001) ** 2, np.arange(100_000))  # 1.2 MB
            run.train(until=lambda step, values: False, wait=False)
            assert until(lambda: any("cannot be written" in event.text for event in run.events), 5)
            assert run.status == "training"
            run.stop()
            run.wait()
        assert until(lambda: any("is written to again" in event.text for event in run.events), 10)
        assert SavedRun(disk / "one").history.last("mine/many") == (100_000**2, 99_999.0)
        assert table(SavedRun(disk / "one").history)["train/loss"] == table(run.history)["train/loss"]


def test_a_kept_run_that_nobody_has_any_more_stops_and_is_saved(tmp_path):
    run = begin(tmp_path)
    run.train(until=lambda step, values: False, wait=False)
    assert until(lambda: run.progress.step > 3, 20)
    durable: Any = run._durable
    gone = weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None
    assert until(lambda: durable._control.under_way is None, 10)
    durable.saves.finish()
    assert durable.repository.latest.step == durable._engine.step
