"""Whatever happens to a run's disk, training goes on, it is seen within a second, and all comes back."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import toolshed
from tests.checkpoints.test_disk import everyones, full, read_only, small_disk
from tests.run.kept import bits, collected, data, let_go, table, trainer
from tests.run.small import until
from toolshed.errors import SaveError
from toolshed.live import TerminalView
from toolshed.live.scene import head
from toolshed.live.screen import frame
from toolshed.live.sparklines import UNICODE
from toolshed.run import SavedRun

__all__ = ["collected", "everyones"]
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
TRAINER = trainer()
AT_ONCE = 1.0  # seconds in which a failure is to be seen


class Watched:
    """A kept run that trains, with a dashboard's header and a terminal in view."""

    def __init__(self, root: Path):
        self.run = toolshed.Run(TRAINER, data(), store=root, name="one", checkpoint_every=0)
        self.folder = root / "one"
        self.run.train(10, wait=True)
        self.run.save("early", wait=True)
        self._terminal = io.StringIO()
        self._view = TerminalView(self.run, self._terminal).start()
        self.run.train(until=lambda step, values: False, wait=False)

    def is_seen(self, words: str) -> None:
        """Waits until a failure is seen everywhere: at once in the run, its header, and a drawn terminal."""
        begun = time.monotonic()
        while words not in head(self.run)["message"]:
            assert time.monotonic() - begun < AT_ONCE, self.run.events
            time.sleep(0.01)
        rows = ["".join(text for text, _ in row) for row in frame(self.run, 300, 40, UNICODE)]
        assert any(words in row for row in rows)
        assert any(words in event.text for event in self.run.events if event.kind == "error")

    def goes_on(self) -> None:
        """Whether it trains on."""
        before = self.run.progress.step
        until(lambda: self.run.progress.step >= before + 20)
        assert self.run.status == "training"

    def recovers(self) -> None:
        """Waits until the disk's trouble is over, and nothing is said of it any more."""
        until(lambda: self.run._durable is not None and not self.run._durable.problem, 20)
        assert "cannot be written" not in self.run.progress.message
        assert "was not saved" not in self.run.progress.message

    def ends_whole(self) -> None:
        """Whether everything is on the disk at the end, and another process could go on from there."""
        run = self.run
        run.stop()
        run.wait()
        run.save("late", wait=True)
        self._view.close()
        assert "cannot be written" in self._terminal.getvalue() or "not saved" in self._terminal.getvalue()
        assert run._durable is not None
        run._durable._keeper.sync()
        assert table(SavedRun(self.folder).history) == table(run.history)
        losses = table(run.history)["train/loss"]
        end = bits(run.state)
        let_go(run)
        resumed = toolshed.attach("one", TRAINER, data(), path=self.folder.parent)
        assert bits(resumed.state) == end
        assert table(resumed.history)["train/loss"] == losses
        let_go(resumed)


def test_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        watched = Watched(disk)
        run = watched.run
        with full(disk):
            run.history.append("mine/many", np.arange(1, 100_001) ** 2, np.arange(100_000))  # 1.2 MB
            run.log("mine/one", 1.0)
            watched.is_seen("cannot be written")
            watched.goes_on()
        watched.recovers()
        assert SavedRun(watched.folder).history.last("mine/many") == (100_000**2, 99_999.0)
        watched.ends_whole()
        kept = SavedRun(watched.folder).checkpoints.find()
        assert "early" in {tag for one in kept for tag in one.tags}


def test_a_directory_that_becomes_read_only(everyones):
    watched = Watched(everyones)
    with read_only(everyones):  # what is open already can be written on
        saving = watched.run.save("lost")
        watched.is_seen("was not saved in")
        with pytest.raises(SaveError, match="Permission denied"):
            saving.wait()
        watched.goes_on()
    watched.run.save("found", wait=True)
    watched.recovers()
    watched.ends_whole()


@contextlib.contextmanager
def covered(folder: Path) -> Iterator[None]:
    """An empty directory that nothing can be written in lies over another one, as where a disk is lost."""
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    aside = folder.rename(folder.with_name("aside"))
    folder.mkdir()
    with read_only(folder):
        yield
    folder.rmdir()
    aside.rename(folder)


def test_a_disk_that_is_gone_and_comes_back(everyones):
    watched = Watched(everyones)
    with covered(watched.folder):
        watched.is_seen(f"{watched.folder} cannot be written: ")
        watched.is_seen("Read-only file system" if os.path.ismount(watched.folder) else "Permission denied")
        with pytest.raises(SaveError):
            watched.run.save("lost", wait=True)
        watched.goes_on()
    watched.recovers()
    watched.ends_whole()


def test_a_directory_that_is_removed(tmp_path):
    watched = Watched(tmp_path)
    run = watched.run
    shutil.rmtree(watched.folder)
    watched_event = f"{watched.folder} cannot be written: it was removed; it is made anew."
    until(lambda: any(event.text == watched_event for event in run.events), AT_ONCE)
    watched.goes_on()
    watched.recovers()
    until(lambda: any("is written to again" in event.text for event in run.events))
    told = next(event.text for event in run.events if "is written to again" in event.text)
    assert told == (
        f"{watched.folder} is written to again; no value is missing in it. Checkpoints that were removed are"
        " lost; a new one is made now."
    )
    until(lambda: run.checkpoints.steps() != [])  # nobody asks for it
    assert run.checkpoints.find(tags="early") == []
    watched.ends_whole()


def test_a_file_that_takes_the_directory_s_place(tmp_path):
    watched = Watched(tmp_path)
    shutil.rmtree(watched.folder)
    watched.folder.touch()
    watched.is_seen("cannot be written")
    watched.is_seen("File exists")
    with pytest.raises(SaveError):
        watched.run.save("lost", wait=True)
    watched.goes_on()
    watched.folder.unlink()
    watched.recovers()
    watched.ends_whole()


def test_no_trouble_is_told_where_there_is_none(tmp_path):
    watched = Watched(tmp_path)
    watched.goes_on()
    with pytest.raises(AssertionError):
        watched.is_seen("cannot be written")
    watched.run.stop()
    watched.run.wait()
    assert watched.run.progress.message == ""
    with pytest.raises(AssertionError):
        watched.ends_whole()  # which expects that the terminal told of something


def test_the_last_state_is_saved_at_the_end_where_it_could_not_be_before(tmp_path, capsys):
    watched = Watched(tmp_path)
    run = watched.run
    watched.goes_on()  # to a state that is not saved yet
    staging = run.checkpoints.path / "staging"
    staging.rmdir()
    staging.touch()  # a file where a directory has to be
    run.stop()
    run.wait()
    assert run._durable is not None
    run._durable.saves.finish()
    assert "was not saved in" in run.progress.message
    staging.unlink()
    run._durable.finish()  # as at the end of the interpreter
    assert run.checkpoints.latest is not None
    assert run.checkpoints.latest.step == run.progress.step
    assert run.progress.message == ""
    assert "Training goes on." in capsys.readouterr().err


def test_values_that_never_came_to_the_disk_are_said_when_somebody_attaches(tmp_path):
    watched = Watched(tmp_path)
    run, file = watched.run, watched.folder / "run.sqlite"
    run.stop()
    run.wait()
    assert run._durable is not None
    run._durable._keeper.sync()
    step = run.progress.step
    file.rename(tmp_path / "aside")
    file.mkdir()  # a directory where a file has to be
    run.train(5, wait=True)
    run.save("later", wait=True)
    let_go(run)
    file.rmdir()
    (tmp_path / "aside").rename(file)
    resumed = toolshed.attach("one", TRAINER, data(), path=tmp_path)
    assert resumed.progress.message == (
        f"goes on from the checkpoint of step {step + 5:,}; the values of the 5 steps before it could not be"
        " written"
    )
    assert bits(resumed.state) == bits(run.state)
    assert resumed.history.last("train/loss")[0] == step
