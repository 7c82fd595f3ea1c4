"""What there is in a repository, and how one of it is found: by step, tag, metadata or metric."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from toolshed import paths
from toolshed.checkpoints import labels, layout, manifest
from toolshed.checkpoints.layout import Entry, Layout
from toolshed.checkpoints.manifest import Manifest
from toolshed.checkpoints.retention import Best, ranked
from toolshed.errors import (
    CheckpointDamagedError,
    CheckpointError,
    CheckpointNotFoundError,
    CheckpointSchemaError,
    CheckpointWarning,
)

Which = int | str | Manifest
"""A checkpoint: its step, ``"latest"``, ``"best"``, a tag, or its manifest."""


class Listing(NamedTuple):
    """The checkpoints of a repository, in the order of writing.

    Attributes:
      whole: manifests of those whose files are all there in their sizes.
      broken: the others, with what is wrong with each.
    """

    whole: tuple[Manifest, ...]
    broken: tuple[tuple[Entry, CheckpointError], ...]


class Catalogue:
    """Reads what is there, anew each time; only manifests that did not change are not parsed again.

    Args:
      layout: the directories.
      best: what ``"best"`` means where no checkpoint has that tag.
    """

    def __init__(self, layout: Layout, best: Best | None):
        self._layout = layout
        self._best = best
        self._known: dict[str, tuple[Any, Manifest]] = {}

    def entries(self) -> list[Entry]:
        """The directories of checkpoints in the order of writing; reads no file."""
        return self._layout.entries()

    def list(self) -> Listing:
        """What is there now. One that a writer deletes meanwhile is not there."""
        whole, broken, known = [], [], {}
        for entry in self._layout.entries():
            try:
                known[entry.name] = self._read(entry)
                whole.append(known[entry.name][1])
            except (CheckpointDamagedError, CheckpointSchemaError) as error:
                if entry.is_there():
                    broken.append((entry, error))
        self._known = known
        return Listing(tuple(whole), tuple(broken))

    def _read(self, entry: Entry) -> tuple[Any, Manifest]:
        mark = entry.mark()
        known = self._known.get(entry.name)
        if known is None or mark is None or known[0] != mark:
            return mark, manifest.read(entry)
        manifest.check_sizes(known[1])
        return known

    def whole(self, *, warn: bool = False) -> tuple[Manifest, ...]:
        """The whole checkpoints in the order of writing.

        Args:
          warn: say if some had to be left out.

        Raises:
          CheckpointDamagedError: there are checkpoints, and none is whole.
        """
        listing = self.list()
        if listing.broken and not listing.whole:
            raise self.none_whole(len(listing.broken), listing.broken[-1][1])
        if listing.broken and warn:
            warnings.warn(
                f"{len(listing.broken)} of the checkpoints in {self._layout.root} cannot be read and are left"
                f" out: {listing.broken[-1][1]}",
                CheckpointWarning,
                stacklevel=4,
            )
        return listing.whole

    def none_whole(self, count: int, newest: CheckpointError) -> CheckpointError:
        """The error for a repository in which nothing can be read."""
        of = "the checkpoint" if count == 1 else f"none of the {count} checkpoints"
        cannot = "cannot" if count == 1 else "can"
        return type(newest)(
            f"{of[0].upper()}{of[1:]} in {self._layout.root} {cannot} be read. The newest: {newest}"
        )

    def latest(self) -> Manifest | None:
        """The whole checkpoint written last; None if there are no checkpoints at all."""
        return next(reversed(self.whole()), None)

    def best(self, metric: str, mode: str) -> Manifest:
        """The whole checkpoint with the best finite value of a metric; of equal ones the newer.

        Raises:
          CheckpointNotFoundError: none has a finite value of it.
        """
        whole = self.whole(warn=True)
        found = ranked(whole, metric, mode)
        if not found:
            names = sorted({name for one in whole for name in one.metrics})
            there = f"The metrics there are {', '.join(names[:8])}." if names else "None has any metrics."
            hint = f"{there} Give them to save(metrics=…)."
            raise self._not_found(f"checkpoint with a finite {str(metric)[:100]!r}", hint)
        return found[0]

    def find(self, tags: Iterable[str], metadata: Mapping[str, Any]) -> list[Manifest]:
        """The whole checkpoints with all of these tags and entries of metadata, in the order of writing."""
        wanted = set(tags)
        return [
            one
            for one in self.whole(warn=True)
            if wanted <= set(one.tags)
            and all(key in one.metadata and one.metadata[key] == value for key, value in metadata.items())
        ]

    def one(self, which: Which) -> Manifest:
        """One checkpoint; see `Repository.manifest`."""
        if isinstance(which, Manifest):
            return manifest.read(which.entry)
        if isinstance(which, str):
            return self._named(which)
        step = layout.check_step(which)
        listing = self.list()
        found = [one for one in listing.whole if one.step == step]
        broken = [(entry, error) for entry, error in listing.broken if entry.step == step]
        if broken and (not found or broken[-1][0].generation > found[-1].generation):
            raise broken[-1][1]
        if not found:
            there = sorted({one.step for one in listing.whole})
            near = sorted(sorted(there, key=lambda other: abs(other - step))[:4])
            hint = f"There are {len(there)}; the nearest are {', '.join(map(str, near))}."
            raise self._not_found(f"step {step}", hint if there else "There is no checkpoint at all.")
        return found[-1]

    def _named(self, name: str) -> Manifest:
        whole = self.whole(warn=name != labels.LATEST)
        if name == labels.LATEST:
            if not whole:
                raise self.empty()
            return whole[-1]
        tagged = [one for one in whole if name in one.tags]
        if tagged:
            return tagged[-1]
        if name == labels.BEST and self._best is not None:
            return self.best(self._best.metric, self._best.mode)
        if name == labels.BEST:
            hint = "Which is best? Ask best('eval/loss'), make the repository with keep_best=…, or tag one."
        else:
            tags = sorted({tag for one in whole for tag in one.tags})
            near = paths.nearest(name, tags) or tags[:8]
            hint = f"There is {', '.join(map(repr, near))}." if tags else "None has a tag."
        raise self._not_found(f"checkpoint with the tag {name[:100]!r}", hint)

    def empty(self) -> CheckpointNotFoundError:
        """The error for a repository in which there is nothing."""
        return CheckpointNotFoundError(f"There is no checkpoint in {self._layout.root}.")

    def _not_found(self, what: str, hint: str) -> CheckpointNotFoundError:
        return CheckpointNotFoundError(f"There is no {what} in {self._layout.root}. {hint}")
