"""Branches: lines of training that left each other, and which values lie on each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from toolshed import paths
from toolshed.errors import HistoryError
from toolshed.run.track import Series, Track
from toolshed.run.windows import Piece, join
from toolshed.views.panels import arrange, in_order


class Branch(NamedTuple):
    """A line of training that left another one.

    Attributes:
      name: what it is called.
      parent: the branch that it left, None for the first.
      start: the number of steps done when it left. Its own values are at later steps; those of the first
        branch from step 0 on.
    """

    name: str
    parent: str | None
    start: int


class State(NamedTuple):
    """All that a history knows at one moment. It and the dicts in it never change."""

    branches: tuple[Branch, ...]
    branch: str
    tracks: dict[str, dict[str, Track]]  # by name, then by branch
    version: int

    def with_changes(self, **changes: Any) -> State:
        return self._replace(version=self.version + 1, **changes)


LAST = 2**62  # later than any step


def find(state: State, name: str | None) -> Branch:
    """The branch of a name, the current one for None.

    Raises:
      HistoryError: there is none; the nearest names are named.
    """
    name = state.branch if name is None else name
    for branch in state.branches:
        if branch.name == name:
            return branch
    known = [branch.name for branch in state.branches]
    raise HistoryError(f"There is no branch {name!r}.{_nearest(name, known)}")


def line_of(state: State, branch: str | None) -> list[tuple[str, int]]:
    """The branches of a line, newest first, each with the step after which the line left it.

    Raises:
      HistoryError: there is no such branch.
    """
    here, known = find(state, branch), {branch.name: branch for branch in state.branches}
    line = [(here.name, LAST)]
    while here.parent is not None:
        line.append((here.parent, min(line[-1][1], here.start)))
        here = known[here.parent]
    return line


def tracks_of(state: State, name: str) -> dict[str, Track]:
    """The values of one name by branch.

    Raises:
      HistoryError: there are none.
    """
    if name not in state.tracks:
        raise no_values(name, list(state.tracks))
    return state.tracks[name]


def backwards(
    tracks: dict[str, Track], line: list[tuple[str, int]], start: int = 0, stop: int = LAST
) -> Iterator[Piece]:
    """The parts of a line with values from step ``start`` to ``stop``, from the newest back."""
    for branch, left in line:
        if left < start:
            return  # and the line left all further ones even earlier
        if branch in tracks:
            piece = cut(Piece(tracks[branch], 0, tracks[branch].length), start, min(stop, left))
            if piece is not None:
                yield piece


def cut(piece: Piece, start: int, stop: int) -> Piece | None:
    """What of a piece lies from step ``start`` to ``stop``; None where that is nothing."""
    first = max(piece.track.place(start), piece.start)
    last = min(piece.track.place(stop + 1), piece.stop)
    return Piece(piece.track, first, last) if first < last else None


def after(state: State, name: str, branch: Branch, left: int | None) -> Series:
    """What a branch did and the current line does not have, from the last value on that both have.

    Args:
      left: the step after which the current line left it; None if it is no part of it.
    """
    start = branch.start if left is None else left
    tracks, line = tracks_of(state, name), line_of(state, branch.name)
    own = [] if start >= LAST else list(backwards(tracks, line[:1], start + 1))
    before = next(backwards(tracks, line, stop=start), None)
    return join(own if before is None or not own else [before._replace(start=before.stop - 1), *own])


def choose(known: list[str], wanted: Iterable[str] | None) -> list[str]:
    """The names that are wanted, each by itself or by the title of its panel.

    Raises:
      HistoryError: there is none of a name.
    """
    if wanted is None:
        return in_order(known)
    titles = {panel.title: panel.names for panel in arrange(known)}
    chosen: list[str] = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name not in known and name not in titles:
            raise no_values(name, known)
        chosen += [name] if name in known else titles[name]
    return list(dict.fromkeys(chosen))


def no_values(name: str, known: list[str]) -> HistoryError:
    """The error for a name that no values have; says which names are near."""
    return HistoryError(f"There are no values named {name!r}.{_nearest(name, known)}")


def _nearest(name: str, known: list[str]) -> str:
    close = paths.nearest(name, known)
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    return f" There is {', '.join(known[:8])}{', …' if len(known) > 8 else ''}." if known else ""
