"""Autopsies: what a run found out about the value that stopped it, as text that views show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from toolshed.live.scene import clip
from toolshed.run import Event
from toolshed.views.panels import short

FIELDS = 12
"""Fields of a batch, or lines of an autopsy, that are shown."""


def newest(events: Sequence[Event]) -> dict[str, Any]:
    """The newest autopsy in words, JSON-able; empty where there is none.

    What an event holds may come out of a stranger's file: whatever it is, text of bounded length becomes
    of it.
    """
    event = next((event for event in reversed(events) if event.kind == "autopsy"), None)
    if event is None:
        return {}
    found = event.data
    lines = [_labelled(line) for line in _list(found.get("lines"))[1:]]
    batch = found.get("batch")
    batch = batch if isinstance(batch, Mapping) else {}
    fields = [one for one in _list(batch.get("fields")) if isinstance(one, Mapping)]
    return {
        "step": event.step,
        "headline": clip(str(found.get("headline", event.text))),
        "lines": [line for line in lines if line[0] != "step"],
        "place": clip(str(batch.get("place", ""))),
        "examples": _examples(batch.get("examples"), None),
        "fields": [_field(one) for one in fields],
        "left_out": clip(str(batch.get("left_out") or "")),
    }


def _list(value: Any) -> list[Any]:
    return list(value[:FIELDS]) if isinstance(value, (list, tuple)) else []


def _labelled(line: Any) -> list[str]:
    """A line of an autopsy as its label and what it says; the line of code has no label."""
    text = str(line)
    found = re.match(r"  (\w+)  +", text)
    return ["", clip(text.strip())] if found is None else [clip(found[1], 12), clip(text[found.end() :])]


def _field(field: Mapping[str, Any]) -> list[str]:
    """A row of the batch's table: name, type, least, largest, how many NaN and infinities, and where."""
    named = [clip(str(field.get(name, "")), 80) for name in ("path", "type")]
    ends = [_number(field.get(name)) for name in ("min", "max")]
    counts = [clip(str(field.get(name, "")), 20) for name in ("nan", "infinite")]
    where = _examples(field.get("examples"), field.get("bad"))
    return [*named, *ends, *counts, where]


def _number(value: Any) -> str:
    if value is None:
        return "–"
    return short(value) if isinstance(value, float) else clip(str(value), 20)


def _examples(found: Any, count: Any) -> str:
    """The numbers of examples in words: ``2, 5 and 7 more``."""
    listed = _list(found)
    more = count - len(listed) if isinstance(count, int) else 0
    words = ", ".join(clip(str(one), 20) for one in listed)
    return clip(f"{words} and {more:,} more") if more > 0 else words
