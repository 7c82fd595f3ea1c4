"""Attach: a run that was kept goes on, in another process or another kernel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from toolshed.checkpoints import Manifest, Repository, Restored
from toolshed.checkpoints.loading import warn_about
from toolshed.checkpoints.lock import Lock
from toolshed.data import Stream, stream
from toolshed.errors import CheckpointWarning, DataError, RunError, StoreError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.metrics import Collection
from toolshed.run.durable import holder
from toolshed.run.parts import parts_of
from toolshed.run.resuming import dict_in, resume
from toolshed.run.run import Run
from toolshed.run.saves import Place, check_every
from toolshed.sinks import Sink
from toolshed.state import TrainState
from toolshed.store import folders
from toolshed.store.folders import DATABASE, DEFAULT
from toolshed.store.reading import Content, read

_OPTIONS = ("eval_every", "norms_every", "snapshot_every", "snapshot_bytes", "check_finite")


def attach(
    name_or_path: str | PathLike[str],
    *what: Any,
    path: str | PathLike[str] = DEFAULT,
    eval_data: Any = None,
    metrics: Collection | None = None,
    gradient_strategy: GradientStrategy = backprop,
    seed: int | None = None,
    checkpoint_every: Any = None,
    sinks: Sequence[Sink] = (),
    **options: Any,
) -> Run:
    """A run that was kept, with all its values and events, at its newest whole checkpoint.

    Training on from there gives the same bits as if nothing had happened, on the same machine with the same
    versions; where they differ a warning says so. Values that came after the checkpoint are made again, and
    so are edits of hyperparameters, each at its step.

    Code is not kept: model, optimiser, loss function and data are given again. They have to fit what was
    saved: the structure of the state leaf by leaf, the data by their fingerprint.

    Args:
      name_or_path: the run's name among those in ``path``, or its directory.
      *what: as for `Run`.
      path: the directory of runs.
      eval_data: as for `Run`, like all that follow; what is not given is as it was. ``sinks`` are told of
        what came before, too, as of a new run.

    Raises:
      StoreError: there is no such run, or it cannot be read.
      RunError: it trains in this process.
      RepositoryLockedError: another process trains it.
      CheckpointMismatchError: the model or the optimiser does not fit; each differing leaf is named.
      CheckpointDamagedError: there are checkpoints, and none is whole.
      DataError: the data are others.
    """
    folder = folders.find(name_or_path, path)
    if not what:
        raise RunError(
            "Code is not kept with a run: pass what it is made of, as to Run: attach(name, trainer, data). To"
            f" look at the run alone: toolshed.runs()[{folder.name!r}]."
        )
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise RunError(f"attach has no option {unknown[0]!r}; there are {', '.join(_OPTIONS)}.")
    every = check_every(checkpoint_every)
    lock, held = Lock(folder / folders.LOCK), holder(folder)
    if held is None:
        lock.acquire()
    else:
        held.settle()
    try:
        content = read(folder / DATABASE)
        config = dict_in(content.facts, "config")
        trainer, like, data = parts_of(what, metrics, gradient_strategy, _seed(seed, config))
        data = data if isinstance(data, Stream) else stream(data)
        restored = _newest(folder, like)
        state, place = (like, None) if restored is None else (restored.state, _place(restored.manifest))
        if place is not None:
            _go_to(data, place)
        given = {name: value for name, value in dict_in(config, "options").items() if name in _OPTIONS}
        given |= {"config": dict_in(config, "config"), "name": _name(content, folder), "sinks": sinks}
        run = Run(trainer, state, data, eval_data=eval_data, **given | options)
        if held is not None:  # everything fits
            held.end()
            lock.acquire()
        resume(run, folder, lock, content, place, every)
        return run
    except BaseException:
        lock.release()
        raise


def _seed(seed: int | None, config: Mapping[str, Any]) -> int:
    kept = config.get("seed", 0)
    return seed if seed is not None else kept if isinstance(kept, int) else 0


def _name(content: Content, folder: Path) -> str:
    name = content.facts.get("name")
    return name if isinstance(name, str) and name else folder.name


def _newest(folder: Path, like: TrainState) -> Restored | None:
    """The newest whole checkpoint; None if none was made before the run was killed."""
    repository = Repository(folder / folders.CHECKPOINTS)
    if repository.latest is None:
        warnings.warn(
            f"{folder.name} has no checkpoint yet: it begins again, with the state that was given.",
            CheckpointWarning,
            stacklevel=3,
        )
        return None
    restored = repository.restore(like=like)
    warn_about(restored, like)
    return restored


def _place(manifest: Manifest) -> Place:
    """Where the run was at a checkpoint.

    Raises:
      StoreError: the checkpoint is not one that a run made.
    """
    try:
        return Place(**manifest.data_state)
    except TypeError:
        raise StoreError(
            f"{manifest.folder.name} was not saved by a run, so there is nothing to go on from. Load it with"
            f" Repository({str(manifest.folder.parents[1])!r}).load(…)."
        ) from None


def _go_to(data: Stream, place: Place) -> None:
    try:
        data.restore(place.data)
    except DataError as error:
        raise DataError(
            f"The data do not fit the run. {error} Attach with the data that it was trained on; to train on"
            " others, begin a Run with the state: Run(trainer, state, data)."
        ) from None
