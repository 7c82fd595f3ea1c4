"""Saving: what becomes of a state between the call that saves it and the disk that has it.

`Job` is what there is to write, `Writer` writes it in a thread of its own, and `Saving` is what the
caller holds meanwhile.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (its hook on the interpreter's exit must be there before ours)
import contextlib
import contextvars
import dataclasses
import datetime
import logging
import os
import re
import shutil
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from toolshed.checkpoints import arrays, environment, labels, layout, manifest, structure
from toolshed.checkpoints.layout import Layout
from toolshed.checkpoints.lock import Lock
from toolshed.checkpoints.manifest import Manifest
from toolshed.errors import CheckpointError, SaveError
from toolshed.latch import Latch
from toolshed.paths import describe
from toolshed.state import TrainState, describe_optimizer
from toolshed.state import snapshot as snapshots
from toolshed.views import format_bytes

_LOG = logging.getLogger("toolshed.checkpoints")
_GUARD = threading.Lock()
_SPARE = 1 << 18  # bytes that a checkpoint may take beside its arrays and what is said of each of them
_PER_LEAF = 1 << 10


class Job(NamedTuple):
    """What is to be written.

    Attributes:
      step: the step to file it under; a device scalar that may not be ready yet, or a number.
      leaves: the state's arrays, copied off its own memory.
      shardings: how they lay on the devices, by path; nothing for those on the host.
      environment: versions and devices.
      optimizer: the state's.
      tags: checked.
      metadata: checked.
      metrics: numbers and device scalars.
      data_state: checked.
    """

    step: Any
    leaves: Mapping[str, Any]
    shardings: Mapping[str, Any]
    environment: Mapping[str, Any]
    optimizer: Any
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data_state: Any


def job_of(
    state: Any, *, step: Any, tags: Any, metadata: Any, metrics: Any, data_state: Any
) -> Callable[[dict[str, Any] | None], Job]:
    """Checks what is to be saved, and gives what makes a job of it.

    Returns:
      A function that copies the state's arrays into the buffers that it is given, and gives the job. None
      for no copies.

    Raises:
      CheckpointError: an argument cannot be saved.
      StateError: the state's arrays were donated.
    """
    if not isinstance(state, TrainState):
        raise CheckpointError(f"Expected a TrainState to save, got {describe(state)}.")
    state.check_alive()
    leaves = snapshots.arrays(state)
    arrays.check_saveable(leaves)
    shardings = {path: leaf.sharding for path, leaf in leaves.items() if isinstance(leaf, jax.Array)}
    step = None if step is None else layout.check_step(step)
    described = (shardings, environment.describe(shardings.values()), state.optimizer_def)
    checked = (
        labels.check_tags(tags),
        labels.check_dict("metadata", metadata),
        labels.check_metrics(metrics),
        labels.check_json("data_state", data_state),
    )

    def job(buffers: dict[str, Any] | None) -> Job:
        held = leaves if buffers is None else arrays.copy(leaves, buffers)
        return Job(held["step"] if step is None else step, held, *described, *checked)

    return job


class Saving:
    """A checkpoint on its way to the disk. Any thread may ask it.

    Attributes:
      error: what went wrong, once something did; None otherwise.
      manifest: the checkpoint's, once it is on the disk; None before.
    """

    def __init__(self, where: Path):
        self._where = where
        self._done = Latch()
        self._guard = threading.Lock()
        self._callbacks: list[Callable[[Saving], Any]] = []
        self.error: CheckpointError | None = None
        self.manifest: Manifest | None = None

    @property
    def done(self) -> bool:
        """True once it is on the disk, or has failed."""
        return self._done.is_set()

    @property
    def status(self) -> str:
        """``"saving"``, ``"saved"`` or ``"failed"``."""
        if not self.done:
            return "saving"
        return "failed" if self.error is not None else "saved"

    def wait(self, timeout: float | None = None) -> Manifest:
        """Waits until the checkpoint is on the disk.

        Args:
          timeout: seconds; None to wait for as long as it takes.

        Raises:
          SaveError: it could not be written.
          TimeoutError: it is not there yet.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"The checkpoint is not in {self._where} after {timeout} s; it goes on.")
        if self.error is not None:
            raise self.error
        assert self.manifest is not None
        return self.manifest

    def add_done_callback(self, function: Callable[[Saving], Any]) -> None:
        """Calls ``function(saving)`` once it is done, in the thread that writes; at once if it is done."""
        with self._guard:
            if not self.done:
                self._callbacks.append(function)
                return
        function(self)

    def finish(self, error: CheckpointError | None = None) -> None:
        """Tells everyone that it is over. For the one that writes."""
        with self._guard:
            self.error = error
            self._done.set()
        for function in self._callbacks:
            try:
                function(self)
            except Exception:
                _LOG.exception("What was to be told of a checkpoint in %s failed.", self._where)

    def __repr__(self) -> str:
        what = self.error or self.manifest or f"in {self._where}"
        return f"Saving({self.status}: {what})"


class Writer:
    """The one that writes under a root, for all repositories of this process there.

    One checkpoint is written at a time.

    Attributes:
      lock: what keeps other processes from writing.
      guard: held while what is listed changes.
      pid: the process that it belongs to; in a forked one it is of no use.
    """

    def __init__(self, folders: Layout):
        self.layout = folders
        self.lock = Lock(folders.lock)
        self.guard = threading.RLock()
        self.pid = os.getpid()
        self._turn = threading.Lock()
        self._buffers: dict[str, Any] = {}
        self._saving: Saving | None = None
        self._thread: threading.Thread | None = None

    @property
    def saving(self) -> Saving | None:
        """What is being written now."""
        saving = self._saving
        return None if saving is None or saving.done else saving

    def acquire(self) -> None:
        """Takes the lock, and clears away what a killed writer left.

        Raises:
          RepositoryLockedError: another process writes there.
          OSError: the directories cannot be made.
        """
        with self.guard:
            self.layout.prepare()
            if self.lock.acquire() and self.lock.exclusive:
                self.layout.clean()

    def wait(self) -> None:
        """Waits for what is being written, however it ends."""
        saving, thread = self._saving, self._thread
        if saving is not None and thread is not None and thread.ident is not None:
            with contextlib.suppress(CheckpointError):
                saving.wait()

    def release(self) -> None:
        """Waits for what is being written and gives the lock up."""
        with self._turn:
            self.wait()
            self._buffers.clear()
            self.lock.release()

    def start(
        self,
        job: Callable[[dict[str, Any] | None], Job],
        published: Callable[[Manifest], None],
        *,
        waits: bool = False,
    ) -> Saving:
        """Starts to write, after what is being written now.

        Args:
          job: makes what is to be written, as `job_of` gives it; called once it is this one's turn.
          published: called after the checkpoint is there; what it raises is logged.
          waits: the caller waits for the end: nothing is copied, and a failure is for it to raise.

        Raises:
          RepositoryLockedError: another process writes there.
        """
        saving = Saving(self.layout.root)
        with self._turn:
            self.wait()
            try:
                self.acquire()
                made = job(None if waits else self._buffers)
            except (OSError, RuntimeError) as error:  # of the disk, or of a device without room
                self._fail(saving, error, quiet=waits)
                return saving
            run = contextvars.copy_context().run
            thread = threading.Thread(
                target=run, args=(self._run, saving, made, published, waits), name="toolshed-save"
            )
            _RUNNING.add(thread)
            self._saving, self._thread = saving, thread  # first, for a Ctrl-C may come at any moment
            try:
                thread.start()
            except RuntimeError as error:
                self._fail(saving, error, quiet=waits)
        return saving

    def _run(self, saving: Saving, job: Job, published: Callable[[Manifest], None], quiet: bool) -> None:
        try:
            written = self._write(job)
        except BaseException as error:
            self._fail(saving, error, quiet=quiet)
            return
        saving.manifest = written
        try:
            published(written)
        except Exception as error:
            _LOG.error("Step %s is saved, but old checkpoints were not removed: %s", written.step, error)
        saving.finish()

    def _fail(self, saving: Saving, error: BaseException, *, quiet: bool) -> None:
        what = f"A checkpoint was not saved in {self.layout.root}"
        told = error if isinstance(error, CheckpointError) else failure(what, error)
        if not quiet:
            _LOG.error("%s", told)
        saving.finish(told)

    def _write(self, job: Job) -> Manifest:
        step = layout.check_step(job.step)
        with self.layout.staging() as folder:
            self._check_space(job)
            leaves = arrays.write(folder / layout.ARRAYS, job.leaves, job.shardings)
            (folder / layout.STRUCTURE).write_bytes(structure.to_json(leaves))
            made = Manifest(
                step=step,
                generation=0,
                time=datetime.datetime.now(datetime.UTC),
                tags=job.tags,
                metadata=job.metadata,
                metrics=labels.numbers(job.metrics),
                optimizer=describe_optimizer(job.optimizer),
                data_state=job.data_state,
                environment=job.environment,
                leaves=len(leaves),
                nbytes=sum(leaf.nbytes for leaf in leaves),
                files=manifest.files_of(folder),
                folder=folder,
            )
            layout.sync_tree(folder)
            with self.guard:
                generation = self.layout.next_generation()
                made = dataclasses.replace(made, generation=generation)
                (folder / layout.MANIFEST).write_bytes(manifest.to_json(made))
                entry = self.layout.publish(folder, step, generation)
            return dataclasses.replace(made, folder=entry.folder)

    def _check_space(self, job: Job) -> None:
        """Whether the disk has room, before it is filled to the brim for nothing."""
        needed = _SPARE + sum(_PER_LEAF + leaf.size * leaf.dtype.itemsize for leaf in job.leaves.values())
        free = shutil.disk_usage(self.layout.root).free
        if free < needed:
            raise SaveError(
                f"No space for a checkpoint in {self.layout.root}: it takes {format_bytes(needed)}, and"
                f" {format_bytes(free)} are free."
            )


_WRITERS: weakref.WeakValueDictionary[tuple[int, Path], Writer] = weakref.WeakValueDictionary()


def writer_of(folders: Layout) -> Writer:
    """The writer under a root, one for all repositories of a process there."""
    key = (os.getpid(), folders.root)
    with _GUARD:
        writer = _WRITERS.get(key)
        if writer is None:
            writer = _WRITERS[key] = Writer(folders)
        return writer


def failure(what: str, error: BaseException) -> SaveError:
    """What went wrong, in one line."""
    lines = str(error).splitlines() or [""]
    code = re.search(r"os_error_code='([0-9]+)'", str(error))  # in what tensorstore raises
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    else:
        reason = os.strerror(int(code[1])) if code else f"{type(error).__name__}: {lines[0][:300]}"
    told = SaveError(f"{what}: {reason}.")
    told.__cause__ = error
    return told


_RUNNING: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _wait_at_exit() -> None:
    for thread in list(_RUNNING):
        if thread.is_alive():
            thread.join()


# orbax starts threads, which Python refuses once it is shutting down, and what atexit runs comes too late.
# Without this hook, which is not public, a script has to wait for its last checkpoint by itself.
getattr(threading, "_register_atexit", lambda function: None)(_wait_at_exit)
