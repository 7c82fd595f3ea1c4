"""Durable: the side of a run that is on the disk, its store and its checkpoints together."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolshed.checkpoints import Repository, Saving
from toolshed.checkpoints.labels import check_tags
from toolshed.checkpoints.lock import Lock
from toolshed.errors import RunError, StoreError
from toolshed.run.cursor import Cursor
from toolshed.run.keeping import Keeper
from toolshed.run.saves import KEEP_LAST, SAVED, START, Every, Saves
from toolshed.state import describe_optimizer
from toolshed.store import folders
from toolshed.store.origin import code_version, machine

if TYPE_CHECKING:
    from toolshed.run.run import Run

_LONGEST = 500  # characters of what data are called


class Durable:
    """Keeps a run on the disk.

    Args:
      run: the run.
      folder: its directory.
      config: how it was made, as JSON can hold it.
      every: steps or time between two checkpoints that nobody asked for.
      lock: on the directory, if it is held already.
      cursor: what of the run is written already.
      origin: when the run was created and with what; found out where it is not given.

    Attributes:
      folder: its directory.
      repository: its checkpoints.
      saves: makes them.
      pid: of the process that it belongs to; a forked one has nothing to write.
    """

    def __init__(
        self,
        run: Run,
        folder: Path,
        config: Mapping[str, Any],
        every: Every,
        *,
        lock: Lock | None = None,
        cursor: Cursor | None = None,
        origin: Mapping[str, Any] | None = None,
    ):
        self.folder = folder
        self.repository = Repository(folder / folders.CHECKPOINTS, keep_last=KEEP_LAST)
        self._run = run
        self._engine = run._engine
        self._config = config
        self._origin = dict(origin or {})
        self.pid = os.getpid()
        self._shardings = [leaf.sharding for leaf in self._engine.live_state().params.values()]
        self._wanted = False
        self._began = self._engine.timeline.segments["main"].start
        publisher = run._publisher
        self._keeper = Keeper(folder, lock, publisher, self._facts, cursor or Cursor())
        self.saves = Saves(self.repository, self._keeper, publisher, every)
        self._engine.turned = self._turned
        self._engine.save_every = every if isinstance(every, int) else 0

    def begin(self) -> None:
        """Takes the lock and begins to write.

        Raises:
          RepositoryLockedError: another process writes there.
          OSError: nothing can be written there.
        """
        self._keeper.begin()
        _ALL.add(self)

    def end(self) -> None:
        """Writes what is left, and lets another run have the directory."""
        _ALL.discard(self)
        self.saves.finish()
        self.repository.close()
        self._keeper.end()

    def finish(self) -> None:
        """Ends the training, and waits until all is written. Called at the end of the interpreter."""
        training = self._run._under_way
        if training is not None:
            training.wish = "stop"
            training.over.wait(_PATIENCE)
        self.saves.finish()
        self._keeper.sync()

    # --- in the run's thread

    def after_step(self) -> None:
        """Saves the state if it is time. Called at the end of each step."""
        saves = self.saves
        if (self._wanted or saves.is_due(self._engine.step)) and saves.by_itself(self._engine):
            self._wanted = False

    def at_start(self) -> None:
        """Saves the state that the first step begins with."""
        if not self.saves.has_any:
            self.saves.by_itself(self._engine, tags=(START,), always=True)

    def at_rest(self) -> None:
        """Saves the state that a training ended with, or that was changed by hand."""
        self.saves.by_itself(self._engine, always=True)
        self._wanted = False

    def _turned(self) -> None:
        self._wanted = True

    def save(self, tag: str | None, told: Callable[[Saving], None]) -> Saving:
        """Saves the present state because somebody wants it."""
        return self.saves.save(self._engine, check_tags(SAVED if tag is None else tag), told)

    # --- where the run stands, in any thread

    def _facts(self) -> dict[str, Any]:
        if not self._origin:
            self._origin = {
                "created": time.time(),
                "code": code_version(),
                "environment": machine(self._shardings),
            }
        progress = self._run.progress
        segments = tuple(self._engine.timeline.segments.values())
        return {
            **self._origin,
            "name": self._run.name,
            "config": self._config,
            "status": progress.status,
            "message": progress.message,
            "step": progress.step,
            "goal": progress.goal,
            "conditions": self._run._conditions != (None, ()),
            "elapsed": progress.elapsed,
            "began": self._began,
            "edits": {part.name: [list(edit) for edit in (*part.edits, *part.again)] for part in segments},
            "seen": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }


def new_folder(store: str | os.PathLike[str], name: str | None) -> Path:
    """Makes the directory of a new run.

    Args:
      store: in which directory.
      name: of the run.

    Raises:
      StoreError: it cannot be made.
    """
    root = folders.check_root(store)
    try:
        return folders.claim(root, name or "run")
    except OSError as error:
        raise StoreError(
            f"No run can be kept in {root}: {error.strerror or error}. Pass store= another directory, or"
            " None to keep nothing."
        ) from error


def describe(run: Run, data: Any, eval_data: Any, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """How a run was made, in words and numbers."""
    trainer, state = run.trainer, run._engine.live_state()
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
        "options": {"eval_every": run._engine.window, **options},
    }


def release(folder: Path) -> None:
    """Has a run of this process that is kept in a directory give it up; it goes on without.

    Raises:
      RunError: it trains.
    """
    for durable in list(_ALL):
        if durable.folder == folder and durable.pid == os.getpid():
            if durable._run._under_way is not None:
                raise RunError(
                    f"{durable._run.name} trains in this process. run.stop() and run.wait() first, or go on"
                    " with that run itself."
                )
            durable.end()
            durable._run._durable = None
            durable._engine.tell(
                "note", f"{folder.name} is kept by another run now; this one is kept nowhere"
            )


_ALL: weakref.WeakSet[Durable] = weakref.WeakSet()
_PATIENCE = 5.0  # seconds that the end of the interpreter waits for a step


def _finish_all() -> None:
    """Ends what trains, and writes all that is left, before Python refuses to start threads."""
    for durable in list(_ALL):
        if durable.pid == os.getpid():
            durable.finish()


getattr(threading, "_register_atexit", lambda function: None)(_finish_all)
