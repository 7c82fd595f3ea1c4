"""Saves: the checkpoints of a run, made while it goes on.

The run's thread pays for a copy on the device. The rest happens in a thread of its own: first every value
up to the saved step is written to the store, then the checkpoint; so a checkpoint is never ahead of the
values that led to it.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from toolshed.checkpoints import Repository, Saving
from toolshed.errors import CheckpointError, HistoryError, RunError, StoreWarning
from toolshed.run.engine import Engine
from toolshed.run.events import one_line, warn_aloud
from toolshed.run.history import History
from toolshed.run.keeping import Keeper
from toolshed.run.publisher import Publisher
from toolshed.run.serial import Serial
from toolshed.run.timeline import Snapshot, size_of
from toolshed.state import TrainState

Every = int | datetime.timedelta
"""How often: in steps, or in time."""

MINUTE = datetime.timedelta(minutes=1)
KEEP_LAST = 3
START = "start"
"""The tag of the states that a run and its branches begin with."""
SAVED = "saved"
"""The tag of what somebody saved without a tag."""

_SHARE = 20  # saving by time may take one part in so many of the time
_METRICS = 32  # values that are written into a checkpoint's manifest


class Place(NamedTuple):
    """Where a run was when a state was saved, as a checkpoint's ``data_state`` holds it."""

    data: Any
    branch: str
    edits: int
    elapsed: float
    window: int


class Saves:
    """Makes the checkpoints of one run.

    Args:
      repository: where to.
      keeper: writes the values first.
      publisher: is told.
      every: steps or time between two checkpoints that nobody asked for; 0 for none.

    Attributes:
      repository: where to.
      problem: why the last one was not saved, in words; or empty.
    """

    def __init__(self, repository: Repository, keeper: Keeper, publisher: Publisher, every: Every):
        self.repository = repository
        self._keeper = keeper
        self._publisher = publisher
        self._steps = every if isinstance(every, int) else 0
        self._seconds = every.total_seconds() if isinstance(every, datetime.timedelta) else 0.0
        self._serial = Serial("toolshed: checkpoints")
        self._waiting = 0
        self._wait = self._seconds
        self._due = time.monotonic() + self._wait
        self._newest: tuple[int, str, int] | None = None  # step, branch and edits of what was saved last
        self.problem = ""

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be made after this step. Asked after each one."""
        if self._steps:
            return step % self._steps == 0
        return self._seconds > 0 and time.monotonic() >= self._due

    @property
    def has_any(self) -> bool:
        """Whether anything was saved."""
        return self._newest is not None

    def by_itself(self, engine: Engine, *, tags: tuple[str, ...] = (), always: bool = False) -> bool:
        """Saves the present state, unless it is saved already, or the one before is still being written.

        Args:
          engine: whose state. Called in the run's thread.
          tags: for the checkpoint.
          always: also while one is being written.

        Returns:
          Whether it is saved, or will be.
        """
        here = (engine.step, engine.timeline.current, len(engine.timeline.here.edits))
        if here == self._newest:
            return True
        if self._waiting and not always:
            return False
        self.save(engine, tags)
        return True

    def forget(self) -> None:
        """What was saved may be gone: the next state is saved, whichever it is."""
        self._newest = None

    def restored(self, step: int, branch: str, edits: int) -> None:
        """This state is the one that was saved last."""
        self._newest = (step, branch, edits)

    def save(
        self, engine: Engine, tags: tuple[str, ...], told: Callable[[Saving], None] | None = None
    ) -> Saving:
        """Saves the present state. Called in the run's thread; waits for nothing but a copy.

        Args:
          engine: whose state.
          tags: for the checkpoint.
          told: called when it is on the disk, or has failed.
        """
        engine.flush()
        here = engine.timeline.here
        place = Place(engine.feed.position, here.name, len(here.edits), engine.clock.elapsed, engine.window)
        step, state = engine.step, _apart(engine)
        saving = Saving(self.repository.path)
        if told is not None:
            saving.add_done_callback(told)
        self._waiting += 1
        self._newest = (step, here.name, len(here.edits))
        self._due = float("inf")
        self._serial.put(lambda: self._write(saving, state, step, place, tags))
        return saving

    def _write(
        self, saving: Saving, state: TrainState, step: int, place: Place, tags: tuple[str, ...]
    ) -> None:
        start = time.monotonic()
        try:
            self._publisher.finish()
            self._keeper.sync()
            metrics = metrics_at(self._publisher.history, place.branch, step)
            written = self.repository.save(
                state, tags=tags, metrics=metrics, data_state=place._asdict(), wait=True
            )
            saving.manifest = written.wait()
        except Exception as error:
            self._newest = None
            words = one_line(error)
            self._failed(step, words)
            saving.finish(error if isinstance(error, CheckpointError) else CheckpointError(words))
        else:
            self.problem = ""
            saving.finish()
        finally:
            self._waiting -= 1
            now = time.monotonic()
            self._wait = max(self._seconds, _SHARE * (now - start))
            self._due = now + self._wait

    def _failed(self, step: int, words: str) -> None:
        if words != self.problem:
            self.problem = words
            self._publisher.event("error", step, self._publisher.history.branch, words)
            warn_aloud(f"{words} Training goes on.", StoreWarning)

    def finish(self) -> None:
        """Waits for all that is being written."""
        if not self._serial.is_here():
            self._serial.put(lambda: None).done.wait()


def check_every(every: Any) -> Every:
    """How often, as it is kept.

    Raises:
      RunError: it is neither a number of steps nor a time.
    """
    if every is None:
        return MINUTE
    is_steps = isinstance(every, int) and not isinstance(every, bool) and every >= 0
    if is_steps or (isinstance(every, datetime.timedelta) and every.total_seconds() > 0):
        return every
    raise RunError(
        f"checkpoint_every is {every!r}; expected a number of steps, a datetime.timedelta, 0 for only those"
        " that are asked for, or None for about one a minute."
    )


def _apart(engine: Engine) -> TrainState:
    """The state in memory that no step will use: the device's, or the host's where that is full."""
    try:
        return engine.state()
    except RuntimeError:  # what jax raises where there is no room
        live = engine.live_state()
        return Snapshot(engine.step, live, None, 0, True, size_of(live)).moved().state


def metrics_at(history: History, branch: str, step: int) -> Mapping[str, float]:
    """The newest values of training and evaluation up to a step of a branch."""
    found: dict[str, float] = {}
    for name in history.names:
        if name.startswith(("train/", "eval/")) and len(name) <= 100 and len(found) < _METRICS:
            try:
                steps, values = history.series(name, branch)
            except HistoryError:
                continue
            at = int(np.searchsorted(steps, step, "right")) - 1
            if at >= 0:
                found[name] = float(values[at])
    return found
