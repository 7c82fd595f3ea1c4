"""Durable: the side of a run that is on the disk, its store and its checkpoints together."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolshed.checkpoints import Repository, Saving
from toolshed.checkpoints.labels import check_tags
from toolshed.checkpoints.lock import Lock
from toolshed.errors import RunError, StoreError
from toolshed.run.control import Control
from toolshed.run.cursor import Cursor
from toolshed.run.engine import Engine
from toolshed.run.events import warn_of
from toolshed.run.keeping import Keeper
from toolshed.run.saves import KEEP_LAST, SAVED, START, Every, Saves
from toolshed.state import describe_optimizer
from toolshed.store import folders
from toolshed.store.origin import code_version, machine

_LONGEST = 500  # characters of what data are called
_PATIENCE = 5.0  # seconds that the end of the interpreter waits for a step


class Durable:
    """Keeps a run on the disk.

    Args:
      name: of the run.
      engine: of the run.
      control: of the run.
      folder: its directory.
      config: how it was made, as JSON can hold it.
      every: steps or time between two checkpoints that nobody asked for.
      lock: on the directory, if it is held already.
      cursor: what of the run is written already.
      origin: when the run was created and with what; found out where it is not given.

    Attributes:
      name: of the run.
      folder: its directory.
      repository: its checkpoints.
      saves: makes them.
      pid: of the process that it belongs to; a forked one has nothing to write.
      ended: whether the directory was given up.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        control: Control,
        folder: Path,
        config: Mapping[str, Any],
        every: Every,
        *,
        lock: Lock | None = None,
        cursor: Cursor | None = None,
        origin: Mapping[str, Any] | None = None,
    ):
        self.name = name
        self.folder = folder
        self.repository = Repository(folder / folders.CHECKPOINTS, keep_last=KEEP_LAST)
        self.pid = os.getpid()
        self.ended = False
        self._engine = engine
        self._control = control
        self._config = config
        self._origin = dict(origin or {})
        self._shardings = [leaf.sharding for leaf in engine.live_state().params.values()]
        self._wanted = False
        self._began = engine.timeline.segments["main"].start
        self._keeper = Keeper(folder, lock, engine.publisher, self._facts, cursor or Cursor())
        self.saves = Saves(self.repository, self._keeper, engine.publisher, every)
        self._keeper.returned = self._returned
        engine.turned = self._turned
        engine.save_every = every if isinstance(every, int) else 0

    def begin(self) -> None:
        """Takes the lock and begins to write.

        Raises:
          RepositoryLockedError: another process writes there.
          StoreError: nothing can be written there.
        """
        try:
            self._keeper.begin()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"No run can be kept in {self.folder}: {reason}.") from error
        _ALL.add(self)

    def settle(self) -> None:
        """Writes what is left.

        Raises:
          RunError: the run trains.
        """
        if self._control.under_way is not None:
            raise RunError(
                f"{self.name} trains in this process. run.stop() and run.wait() first, or go on with that run"
                " itself."
            )
        self.saves.finish()
        self._keeper.sync()

    def end(self) -> None:
        """Lets another run have the directory; this one goes on without."""
        _ALL.discard(self)
        self.saves.finish()
        self.repository.close()
        self._keeper.end()
        self._control.keeps, self.ended = None, True
        self._engine.tell("note", f"{self.folder.name} is kept by another run now; this one is kept nowhere")

    def finish(self) -> None:
        """Ends the training, and waits until all is written. Called at the end of the interpreter."""
        training = self._control.under_way
        if training is not None:
            training.wish = "stop"
            training.over.wait(_PATIENCE)
        self.saves.finish()
        if self.saves.problem and self.folder.is_dir():
            with contextlib.suppress(Exception):
                self._control.ask(self.at_rest)
            self.saves.finish()
        self._keeper.finish()

    @property
    def problem(self) -> str:
        """Why not all can be written now, in words; or empty."""
        return "" if self.ended else self._keeper.problem or self.saves.problem

    # --- in the run's thread

    def at_start(self) -> None:
        """Saves the state that the first step begins with."""
        if not self.saves.has_any:
            self._by_itself(tags=(START,), always=True)

    def after_step(self) -> None:
        """Saves the state if it is time."""
        if self._wanted or self.saves.is_due(self._engine.step):
            self._by_itself()

    def at_rest(self) -> None:
        """Saves the state that a training ended with, or that was changed by hand."""
        self._by_itself(always=True)

    def _by_itself(self, **how: Any) -> None:
        try:
            if self.saves.by_itself(self._engine, **how):
                self._wanted = False
        except Exception as error:  # training goes on, whatever it is
            warn_of(error, "A checkpoint could not be made.")

    def save(self, tag: str | None) -> Saving:
        """Saves the present state because somebody wants it.

        Raises:
          CheckpointError: the tag is no word.
        """
        step, branch, control = self._engine.step, self._engine.timeline.current, self._control
        tags = check_tags(SAVED if tag is None else tag)

        def told(saving: Saving) -> None:
            if saving.error is not None:
                control.say(None)  # what is wrong is said for as long as it is
                return
            words = f"saved step {step:,}" + (f" as {tag!r}" if tag else "")
            self._engine.publisher.event("saved", step, branch, words, tag=tag)
            control.say(None, words)

        control.say(None, f"saving step {step:,}")
        return self.saves.save(self._engine, tags, told)

    def _turned(self) -> None:
        self._wanted = True

    def _returned(self) -> None:
        """The disk is there again: the present state is saved at the next moment between two steps."""
        self.saves.forget()
        self._control.ask_later(self.at_rest, at_rest=False)

    # --- where the run stands, in any thread

    def _facts(self) -> dict[str, Any]:
        if not self._origin:
            self._origin = {
                "created": time.time(),
                "code": code_version(),
                "environment": machine(self._shardings),
            }
        engine, control = self._engine, self._control
        segments = tuple(engine.timeline.segments.values())
        return {
            **self._origin,
            "name": self.name,
            "config": self._config,
            "status": control.status,
            "message": control.message,
            "step": engine.step,
            "goal": control.goal,
            "conditions": control.has_conditions,
            "elapsed": engine.clock.elapsed,
            "began": self._began,
            "edits": {part.name: [list(edit) for edit in (*part.edits, *part.again)] for part in segments},
            "seen": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }


def new_folder(store: str | os.PathLike[str], name: str) -> Path:
    """Makes the directory of a new run.

    Args:
      store: in which directory.
      name: of the run.

    Raises:
      StoreError: it cannot be made.
    """
    root = folders.check_root(store)
    try:
        return folders.claim(root, name)
    except OSError as error:
        raise StoreError(
            f"No run can be kept in {root}: {error.strerror or error}. Pass store= another directory, or"
            " None to keep nothing."
        ) from error


def describe(
    engine: Engine, data: Any, eval_data: Any, seed: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """How a run was made, in words and numbers."""
    trainer, state = engine.trainer, engine.live_state()
    return {
        "model": type(trainer.model).__name__,
        "parameters": sum(leaf.size for leaf in state.params.values()),
        "optimizer": describe_optimizer(state.optimizer_def),
        "loss_fn": getattr(trainer.loss_fn, "__qualname__", type(trainer.loss_fn).__name__),
        "metrics": [] if trainer.metrics is None else list(trainer.metrics.names),
        "gradient_strategy": getattr(
            trainer.gradient_strategy, "__qualname__", type(trainer.gradient_strategy).__name__
        ),
        "data": repr(data)[:_LONGEST],
        "eval_data": None if eval_data is None else repr(eval_data)[:_LONGEST],
        "seed": seed,
        "options": {"eval_every": engine.window, **options},
    }


def holder(folder: Path) -> Durable | None:
    """What keeps a run of this process in a directory, if one is kept there."""
    for durable in list(_ALL):
        if durable.folder == folder and durable.pid == os.getpid():
            return durable
    return None


_ALL: weakref.WeakSet[Durable] = weakref.WeakSet()


def _finish_all() -> None:
    """Ends what trains, and writes all that is left, before Python refuses to start threads."""
    for durable in list(_ALL):
        if durable.pid == os.getpid():
            durable.finish()


getattr(threading, "_register_atexit", lambda function: None)(_finish_all)
