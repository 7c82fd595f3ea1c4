"""Trunks: what the ancestors of a branch left to its line, in few pieces."""

from __future__ import annotations

import threading

from toolshed.run.branches import LAST, State, backwards, cut, line_of, tracks_of
from toolshed.run.track import Track
from toolshed.run.windows import Piece, join

FEW = 3
"""Branches of a line up to which it is read piece by piece."""
SMALL = 65_536
"""Values up to which a piece is put together with its neighbours."""
VALUES = 4_000_000
"""Values that were put together and are kept, in 4.5 to 12.5 bytes each."""


class Trunks:
    """Lines of many branches, the small pieces of their ancestors put together for reading.

    Who goes back a thousand times leaves a line of a thousand pieces. To go through them for each picture
    would take longer than to draw it; so the pieces that no longer change are joined once and kept.

    Any thread may read. What is kept is right whatever is written meanwhile, and bounded in size.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[list[int], list[Piece]]] = {}
        self._lock = threading.Lock()

    def pieces(
        self, state: State, name: str, branch: str | None, own: bool, start: int = 0, stop: int = LAST
    ) -> list[Piece]:
        """The parts of a line with values from step ``start`` to ``stop``, in their order.

        Raises:
          HistoryError: there is no such name or branch.
        """
        line, tracks = line_of(state, branch), tracks_of(state, name)
        if own:
            line = line[:1]
        if len(line) <= FEW:
            return list(backwards(tracks, line, start, stop))[::-1]
        trunk = [cut(piece, start, stop) for piece in self._trunk(name, tracks, line)]
        newest = backwards(tracks, line[:1], start, stop)
        return [*(piece for piece in trunk if piece is not None), *newest]

    def _trunk(self, name: str, tracks: dict[str, Track], line: list[tuple[str, int]]) -> list[Piece]:
        key = (name, line[0][0])
        lengths = [_length(tracks.get(branch), left) for branch, left in line[1:]]
        kept = self._kept.get(key)
        if kept is not None and kept[0] == lengths:
            return kept[1]
        pieces = _together(list(backwards(tracks, line[1:]))[::-1])
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = lengths, pieces
            while len(self._kept) > 1 and sum(map(_copied, self._kept.values())) > VALUES:
                del self._kept[next(iter(self._kept))]
        return pieces


def _length(track: Track | None, left: int) -> int:
    """What a track's share in a line changes with: its length, as long as it may still grow; else -1."""
    if track is None:
        return 0
    return -1 if track.last >= left else track.length


def _copied(kept: tuple[list[int], list[Piece]]) -> int:
    return sum(piece.stop - piece.start for piece in kept[1] if piece.stop - piece.start <= SMALL)


def _together(pieces: list[Piece]) -> list[Piece]:
    """The same values in fewer pieces: neighbours that are small as one."""
    joined: list[Piece] = []
    small: list[Piece] = []
    for piece in [*pieces, None]:
        if piece is not None and piece.stop - piece.start <= SMALL:
            small.append(piece)
            continue
        if len(small) > 1:
            track = Track.empty().append(*join(small))
            small = [Piece(track, 0, track.length)]
        joined += small if piece is None else [*small, piece]
        small = []
    return joined
