"""Cursor: what is new in a history and its events since the last time that somebody wrote them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolshed.run.events import Event, plain
from toolshed.run.history import History
from toolshed.store import Block, Line, News, Record
from toolshed.store.records import ROWS

NEWEST = ("train/loss", "eval/loss")
"""Values of which the newest is written where it can be read without reading all."""


class Cursor:
    """How much was written down. What could not be written stays new.

    Args:
      history: all of it counts as written; None for nothing.
      events: how many events were.
      whole: whether blocks with new values are given from their beginnings, or the new values alone.
    """

    def __init__(self, history: History | None = None, events: int = 0, *, whole: bool = True):
        self._whole = whole
        parts = [] if history is None else history.parts()
        self._lengths = {(name, branch): track.length for name, branch, track in parts}
        self._events = events

    def news(self, history: History, events: Sequence[Event], facts: Mapping[str, Any]) -> News:
        """What came since. Takes no lock; may be called while others write."""
        blocks = []
        for name, branch, track in history.parts():
            done = self._lengths.get((name, branch), 0)
            if track.length > done:
                for first in range(done - done % ROWS, track.length, ROWS):
                    begin = first if self._whole else max(first, done)
                    series = track.cut(begin, min(first + ROWS, track.length))
                    blocks.append(Block(name, branch, first // ROWS, *series))
        lines = tuple(Line(*branch) for branch in history.branches)
        new = tuple(Record(e.kind, e.step, e.branch, e.time, e.text, e.data) for e in events[self._events :])
        names = history.names
        last = {name: plain(found[1]) for name in NEWEST if name in names and (found := history.last(name))}
        facts = {**facts, "names": names, "branch": history.branch, "last": last}
        return News(lines, tuple(blocks), self._events, new, facts)

    def wrote(self, news: News) -> None:
        """All of that was written down."""
        for block in news.blocks:
            key = block.name, block.branch
            before = block.place * ROWS if self._whole else self._lengths.get(key, 0)
            self._lengths[key] = before + len(block.steps)
        self._events = news.first + len(news.events)
