"""History: every value that a run logged, by name, step and branch."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from os import PathLike
from typing import Any

import jax.numpy as jnp
import numpy as np

from toolshed import paths
from toolshed.errors import HistoryError
from toolshed.run import frames
from toolshed.run.branches import LAST, Branch, State, after, backwards, choose, find, line_of, tracks_of
from toolshed.run.track import Series, Track
from toolshed.run.trunks import Trunks
from toolshed.run.windows import Window, join, thin
from toolshed.views import Mark, curves


class History:
    """Values by name, step and branch, all of them, in 4 to 12 bytes each.

    A *line* of a branch is what led to it and what it did: its ancestors' values up to where it left them,
    then its own. Going back in time begins a branch or switches to one; nothing is ever taken out.

    One thread writes (`append`, `begin_branch`, `switch`). Any number of others may read meanwhile; they
    take no lock and never see a half-written block. A write that was broken off has changed nothing.

    Example:
      >>> history = History()
      >>> history.append("train/loss", [1, 2, 3, 4], [4.0, 3.0, 2.0, 1.0])
      >>> history.begin_branch("smaller steps", at=2)
      >>> history.append("train/loss", [3], [2.5])
      >>> history.series("train/loss").values.tolist()
      [4.0, 3.0, 2.5]
      >>> history.series("train/loss", "main").values.tolist()
      [4.0, 3.0, 2.0, 1.0]
    """

    def __init__(self) -> None:
        # Each write ends in one assignment here, which a reader sees whole or not at all.
        self._state = State((Branch("main", None, 0),), "main", {}, 0)
        self._trunks = Trunks()

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All branches, in the order in which they began."""
        return self._state.branches

    @property
    def branch(self) -> str:
        """The name of the current branch."""
        return self._state.branch

    @property
    def names(self) -> list[str]:
        """The names of all values, in the order of their first appearance."""
        return list(self._state.tracks)

    @property
    def version(self) -> int:
        """A number that grows with every change."""
        return self._state.version

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, room to grow included."""
        return sum(track.nbytes for tracks in self._state.tracks.values() for track in tracks.values())

    def parts(self) -> list[tuple[str, str, Track]]:
        """Name, branch and values of all that there is, of one moment: each branch with its own alone."""
        tracks = self._state.tracks
        return [(name, branch, track) for name, own in tracks.items() for branch, track in own.items()]

    # --- writing ------------------------------------------------------------------------------------

    def append(self, name: str, steps: Any, values: Any) -> None:
        """Adds values of one name on the current branch. Amortised, costs what the new values cost.

        Args:
          name: ``split/name``.
          steps: an int, or int[n]; strictly increasing, and later than any before on this branch.
          values: a number, or float[n]; kept as float32, NaN and infinities as they are.

        Raises:
          HistoryError: steps and values do not fit each other, or steps do not increase.
        """
        block = _block(name, steps, values)
        if not len(block.steps):
            return
        state, branch = self._state, find(self._state, None)
        tracks = state.tracks.get(name, {})
        track = tracks.get(branch.name, Track.empty())
        _check_order(name, branch, track, block.steps)
        longer = {**tracks, branch.name: track.append(*block)}
        self._state = state.with_changes(tracks={**state.tracks, name: longer})

    def begin_branch(self, name: str, *, at: int) -> None:
        """Begins a branch that leaves the current one after step ``at``, and makes it the current one.

        Raises:
          HistoryError: there is a branch of this name, or ``at`` is below 0.
        """
        if name in (branch.name for branch in self.branches):
            raise HistoryError(f"There is a branch {name!r} already. Choose another name, or switch to it.")
        if at < 0:
            raise HistoryError(f"A branch cannot begin at step {at}; expected a number of steps done.")
        state = self._state
        branches = (*state.branches, Branch(name, state.branch, int(at)))
        self._state = state.with_changes(branches=branches, branch=name)

    def switch(self, branch: str) -> None:
        """Makes another branch the current one.

        Raises:
          HistoryError: there is none of this name.
        """
        self._state = self._state.with_changes(branch=find(self._state, branch).name)

    # --- reading ------------------------------------------------------------------------------------

    def series(self, name: str, branch: str | None = None, *, own: bool = False) -> Series:
        """All values of one name on a branch's line. Its arrays are not to be written to.

        Args:
          name: one of `names`.
          branch: None for the current one.
          own: only what the branch itself did.

        Raises:
          HistoryError: there is no such name or branch.
        """
        return join(self._trunks.pieces(self._state, name, branch, own))

    def window(
        self, name: str, start: int, stop: int, points: int, branch: str | None = None, *, own: bool = False
    ) -> Window:
        """What a chart of a series shows between two steps: the true extremes of each of its columns.

        Costs O(points · log n), well under a millisecond for any window.

        Args:
          name: one of `names`.
          start: the first step of the window; it belongs to it.
          stop: the last step, likewise.
          points: the largest number of columns, at least 2.
          branch: None for the current one.
          own: only what the branch itself did.

        Raises:
          HistoryError: there is no such name or branch, or there are too few points.
        """
        if points < 2:
            raise HistoryError(f"A window of {points} points; expected at least 2.")
        start, stop = max(0, start), min(stop, LAST)
        return thin(self._trunks.pieces(self._state, name, branch, own, start, stop), points)

    def last(self, name: str, branch: str | None = None) -> tuple[int, float] | None:
        """The newest step and value of one name on a branch's line; None where there is none.

        Raises:
          HistoryError: there is no such name or branch.
        """
        line, tracks = line_of(self._state, branch), tracks_of(self._state, name)
        for piece in backwards(tracks, line):
            return piece.last_step, float(piece.track.pyramid.values[piece.stop - 1])
        return None

    def bounds(self, branch: str | None = None) -> tuple[int, int]:
        """The first and the last step with any value on a branch's line; (0, 0) where there is none.

        Raises:
          HistoryError: there is no such branch.
        """
        state = self._state
        line = line_of(state, branch)
        firsts, lasts = [], []
        for tracks in state.tracks.values():
            lasts += [piece.last_step for piece in itertools.islice(backwards(tracks, line), 1)]
            oldest = (piece for one in line[::-1] for piece in backwards(tracks, [one]))
            firsts += [piece.first_step for piece in itertools.islice(oldest, 1)]
        return min(firsts, default=0), max(lasts, default=0)

    def to_pandas(self, *, long: bool = False) -> Any:
        """The values as a pandas DataFrame.

        Args:
          long: False for the current line alone: a row for each step, a column for each name, NaN where a
            name has no value. True for all branches, each with its own values: columns ``branch``,
            ``name``, ``step`` and ``value``. Only this form tells a missing value from a NaN.

        Raises:
          ToolshedError: pandas is not installed.
        """
        if not long:
            return frames.wide({name: self.series(name) for name in self.names})
        return frames.long(
            (branch.name, name, self.series(name, branch.name, own=True))
            for branch in self.branches
            for name in self.names
        )

    def to_csv(self, path: str | PathLike[str], *, long: bool = False) -> None:
        """Writes `to_pandas` as comma-separated values. The file is there when it is whole, not before.

        Raises:
          ToolshedError: pandas is not installed.
        """
        frames.write_csv(self.to_pandas(long=long), path, index=not long)

    def to_parquet(self, path: str | PathLike[str], *, long: bool = False) -> None:
        """Writes `to_pandas` as a Parquet file. The file is there when it is whole, not before.

        Raises:
          ToolshedError: pandas or pyarrow is not installed.
        """
        frames.write_parquet(self.to_pandas(long=long), path, index=not long)

    def plot(
        self,
        names: Iterable[str] | None = None,
        *,
        log: bool | Collection[str] = False,
        smoothing: float = 0.0,
        marks: Iterable[Mark] = (),
        dark: bool | None = None,
    ) -> Any:
        """The current line as a matplotlib Figure, other branches faintly: `toolshed.views.curves`.

        Args:
          names: some of `names`, or titles of panels, as ``loss`` for ``train/loss`` and ``eval/loss``.
            None for all.
          log: log scale for all panels, or the titles of those that are to have one.
          smoothing: from 0 to below 1; the line as it was logged stays faintly visible.
          marks: what happened when. The beginnings of the line's branches are added.
          dark: for a dark ground; by default as the notebook's theme is.

        Raises:
          HistoryError: there is no such name.
        """
        state = self._state
        chosen = choose(list(state.tracks), names)
        line = line_of(state, None)
        left = dict(line)
        others = {}
        for name in chosen:
            parts = (after(state, name, branch, left.get(branch.name)) for branch in state.branches)
            others[name] = [part for part in parts if len(part.steps) > 1]
        begun = [
            Mark(branch.start, "branched", f"{branch.name} leaves {branch.parent}")
            for branch in state.branches
            if branch.name in left and branch.parent is not None
        ]
        lines = {name: join(self._trunks.pieces(state, name, None, False)) for name in chosen}
        return curves(lines, marks=[*begun, *marks], others=others, log=log, smoothing=smoothing, dark=dark)


def _block(name: str, steps: Any, values: Any) -> Series:
    """Steps and values as they are kept.

    Raises:
      HistoryError: they are not a row of whole numbers and a row of as many numbers, or have no name.
    """
    if not isinstance(name, str) or not name:
        raise HistoryError(f"Got {name!r} as the name of values; expected one such as 'train/loss'.")
    steps, values = np.atleast_1d(np.asarray(steps)), np.atleast_1d(np.asarray(values))
    if steps.ndim != 1 or steps.shape != values.shape:
        raise _misfit(name, steps, values, "a row of each, equally long")
    if not np.issubdtype(steps.dtype, np.integer) and steps.size:
        raise _misfit(name, steps, values, "steps that are whole numbers")
    if not any(jnp.issubdtype(values.dtype, kind) for kind in _REAL) and values.size:
        raise _misfit(name, steps, values, "values that are real numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is marked as such
        return Series(steps.astype(np.int64), values.astype(np.float32))


def _misfit(name: str, steps: Any, values: Any, expected: str) -> HistoryError:
    got = f"steps {paths.describe(steps)} and values {paths.describe(values)}"
    return HistoryError(f"{name}: got {got}; expected {expected}.")


_REAL = (np.floating, np.integer, np.bool_)


def _check_order(name: str, branch: Branch, track: Track, steps: Any) -> None:
    """Whether some steps come after all that a branch has, each after the one before it."""
    back = np.flatnonzero(steps[1:] <= steps[:-1])
    if len(back):
        before, after = steps[back[0]], steps[back[0] + 1]
        raise HistoryError(f"{name}: step {after} comes after step {before}; steps must increase.")
    first = int(steps[0])
    if track.length and first <= (last := track.last):
        raise HistoryError(
            f"{name}: step {first} on branch {branch.name!r}, which has values up to step {last}. To log a"
            " step once more, begin a branch before it: history.begin_branch(name, at=…)."
        )
    if branch.parent is not None and first <= branch.start:
        raise HistoryError(
            f"{name}: step {first} on branch {branch.name!r}, which begins after step {branch.start}."
            f" Steps up to there belong to {branch.parent!r}."
        )
    if first < 0:
        raise HistoryError(f"{name}: step {first}; expected a number of steps done.")
