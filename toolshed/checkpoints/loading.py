"""Loading: from a manifest and a fresh state to the state that was saved, or to one clear error."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from toolshed.checkpoints import arrays, environment, layout, manifest
from toolshed.checkpoints.catalogue import Catalogue, Which
from toolshed.checkpoints.compare import Comparison, Rename, advise, compare, rename
from toolshed.checkpoints.labels import LATEST
from toolshed.checkpoints.manifest import Manifest
from toolshed.checkpoints.restore import can_cast, check_like, rebuild
from toolshed.checkpoints.structure import kind_of
from toolshed.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    CheckpointWarning,
    EnvironmentWarning,
    OptimizerWarning,
    PartialRestoreWarning,
)
from toolshed.state import TrainState, describe_optimizer
from toolshed.state import snapshot as snapshots


class Restored(NamedTuple):
    """A state that came back, and what is to be known about it.

    Attributes:
      state: the state.
      manifest: of the checkpoint that it came from.
      restored: paths of the leaves that have saved values.
      kept: paths of those that are as they were in ``like``.
      dropped: saved paths that had no place.
      differences: in words, which versions and devices are others than when it was saved.
    """

    state: TrainState
    manifest: Manifest
    restored: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    differences: tuple[str, ...]

    def __repr__(self) -> str:
        kept = f", {len(self.kept)} kept ({_some(self.kept)})" if self.kept else ""
        dropped = f", {len(self.dropped)} dropped ({_some(self.dropped)})" if self.dropped else ""
        others = f"; {', '.join(self.differences)}" if self.differences else ""
        what = f"{len(self.restored)} leaves restored{kept}{dropped}{others}"
        return f"Restored(step {self.manifest.step}: {what})"


class Wishes(NamedTuple):
    """How a checkpoint is to be loaded; see `Repository.load`."""

    like: TrainState
    shardings: Any = None
    partial: bool = False
    cast: bool = False
    rename: Rename | None = None


def load(catalogue: Catalogue, which: Which, wishes: Wishes) -> Restored:
    """Loads a checkpoint out of a repository. The latest one may be one before, where others are damaged.

    Raises:
      CheckpointNotFoundError: there is none.
      CheckpointDamagedError: its files are not as they were written.
      CheckpointMismatchError: it does not fit.
    """
    check_like(wishes.like)
    if isinstance(which, str) and which == LATEST:
        return _load_newest(catalogue, wishes)
    found = catalogue.one(which)
    try:
        return _load(found, wishes)
    except CheckpointDamagedError as error:
        if found.entry.is_there():
            raise
        raise CheckpointNotFoundError(f"{found.folder} was deleted just now.") from error


def _load_newest(catalogue: Catalogue, wishes: Wishes) -> Restored:
    """The newest checkpoint that can be loaded. One that a writer deletes meanwhile is not there."""
    damaged: dict[str, CheckpointError] = {}
    while entries := [entry for entry in catalogue.entries() if entry.name not in damaged]:
        newest = entries[-1]
        try:
            restored = _load(manifest.read(newest), wishes)
        except CheckpointDamagedError as error:
            if newest.is_there():
                damaged[newest.name] = error
            continue
        if damaged:
            over = " ".join(str(error) for error in list(damaged.values())[:3])
            step = restored.manifest.step
            warnings.warn(
                f"Loaded step {step}, as what is newer cannot be loaded. {over}",
                CheckpointWarning,
                stacklevel=5,
            )
        return restored
    if not damaged:
        raise catalogue.empty()
    raise catalogue.none_whole(len(damaged), next(iter(damaged.values())))


def _load(found: Manifest, wishes: Wishes) -> Restored:
    expected = {path: kind_of(leaf) for path, leaf in check_like(wishes.like).items()}
    structure = found.structure
    saved = {leaf.path: leaf for leaf in structure}
    old_names = rename(saved, wishes.rename)
    kinds = {new: saved[old].kind for new, old in old_names.items()}
    comparison = compare(kinds, expected, names=("saved", "expected"))
    fitting = _fitting(found, comparison, wishes)

    manifest.check_content(found)
    wanted = [saved[old_names[path]] for path in fitting]
    largest = sum(size for size, _ in found.files.values())
    try:
        values = arrays.read(found.folder / layout.ARRAYS, structure, wanted, largest)
    except CheckpointDamagedError as error:
        raise CheckpointDamagedError(f"{found.folder.name} is damaged: {error}.") from error
    state = rebuild(wishes.like, {path: values[old_names[path]] for path in fitting}, wishes.shardings)

    used = {old_names[path] for path in fitting}
    shardings = [getattr(leaf, "sharding", None) for leaf in snapshots.arrays(state).values()]
    return Restored(
        state=state,
        manifest=found,
        restored=tuple(fitting),
        kept=tuple(path for path in expected if path not in set(fitting)),
        dropped=tuple(path for path in saved if path not in used),
        differences=environment.differences(found.environment, environment.describe(shardings)),
    )


def _fitting(found: Manifest, comparison: Comparison, wishes: Wishes) -> list[str]:
    """The paths to restore.

    Raises:
      CheckpointMismatchError: some do not fit and all have to, or no parameter does.
    """
    casts = [path for path, a, b in comparison.different if wishes.cast and can_cast(a, b)]
    fitting = [*comparison.same, *casts]
    left = len(comparison.differing) - len(casts)
    if left == 0 or (wishes.partial and any(path.startswith(("params/", "frozen/")) for path in fitting)):
        return fitting
    optimizers = (found.optimizer, describe_optimizer(wishes.like.optimizer_def))
    nothing = " No parameter fits, so there is nothing to restore." if wishes.partial else ""
    advice = "" if wishes.partial else "\n" + advise(comparison, optimizers)
    lines = "".join(f"\n{line}" for line in comparison.lines())
    raise CheckpointMismatchError(
        f"Step {found.step} in {found.folder.parents[1]} does not fit this state: {left} of its leaves"
        f" {'differs' if left == 1 else 'differ'}.{nothing}{lines}{advice}"
    )


def warn_about(restored: Restored, like: TrainState) -> None:
    """Says what `Restored` says, as warnings of the one who called `Repository.load`."""
    step, saved_with = restored.manifest.step, restored.manifest.optimizer
    if restored.kept or restored.dropped:
        words = f"{len(restored.restored)} leaves were restored"
        if restored.kept:
            words += f", {len(restored.kept)} are as they were in `like` ({_some(restored.kept)})"
        if restored.dropped:
            words += f", {len(restored.dropped)} saved ones were dropped ({_some(restored.dropped)})"
        warnings.warn(f"Of step {step} {words}.", PartialRestoreWarning, stacklevel=3)
    now = describe_optimizer(like.optimizer_def)
    if saved_with != now:
        warnings.warn(
            f"Step {step} was saved with the optimizer {saved_with}; training goes on with {now}.",
            OptimizerWarning,
            stacklevel=3,
        )
    if restored.differences:
        others = "; ".join(restored.differences)
        warnings.warn(
            f"Step {step} was saved with {others}: training does not go on bit for bit.",
            EnvironmentWarning,
            stacklevel=3,
        )


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
