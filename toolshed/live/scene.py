"""Scene: what there is to see of a run at one moment, in bounded size; the widget and the picture draw it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from toolshed.live.panels import Panel, lay_out
from toolshed.run import Branch, Event, History, Window

COLUMNS = 3000
"""Columns of all lines together: with 16 bytes each an update stays below 60 kB."""
LINE_COLUMNS = 1000
BRANCHES = 6
"""Other branches that are drawn beside the current one: the newest."""
OTHER_LINES = 48
"""Lines of other branches, all panels together."""
MARKS = 120
BUSY = ("training", "evaluating", "pausing")
"""States of a run in which it changes by itself."""
TEXT = 240
"""Characters of a text that came from the run."""


class Line(NamedTuple):
    """A value on a branch, thinned.

    Attributes:
      place: of the value's name among all names.
      branch: whose values these are.
      current: whether that is the branch that trains now, with all that led to it.
      window: the values.
      last: the newest value, NaN and infinities too; None for a part, and for another branch.
    """

    place: int
    branch: str
    current: bool
    window: Window
    last: float | None


class Scene(NamedTuple):
    """A run at one moment.

    Attributes:
      version: of the history.
      branch: the current one.
      first, last: steps between which there are values.
      names: of all values.
      panels: which values share a chart.
      lines: of the current branch, then of others.
    """

    version: int
    branch: str
    first: int
    last: int
    names: tuple[str, ...]
    panels: tuple[Panel, ...]
    lines: tuple[Line, ...]


def whole(history: History, *, columns: int = COLUMNS) -> Scene:
    """All of a history, from the first step to the last.

    Args:
      history: read while others may write to it.
      columns: of all lines together.
    """
    version, branch, names = history.version, history.branch, history.names
    bounds = [history.bounds(name) for name in (branch, *(other for other, _ in _others(history, branch)))]
    ends = [bound for bound in bounds if bound != (0, 0)] or [(0, 0)]
    first, last = min(start for start, _ in ends), max(stop for _, stop in ends)
    panels = lay_out(names)
    places = [place for panel in panels for place, _ in panel.lines]
    lines = _lines(history, branch, names, places, first, last, columns, LINE_COLUMNS)
    newest = {place: history.last(names[place], branch) for place in places}
    lines = [line._replace(last=_value(newest[line.place])) if line.current else line for line in lines]
    return Scene(version, branch, first, last, tuple(names), panels, tuple(lines))


def part(history: History, places: Sequence[int], start: int, stop: int, columns: int) -> Scene:
    """A part of a history at screen resolution.

    Args:
      history: read while others may write to it.
      places: which values, by their place among all names.
      start, stop: the first and the last step.
      columns: of each line.
    """
    version, branch, names = history.version, history.branch, history.names
    known = [place for place in places if place < len(names)]
    lines = _lines(history, branch, names, known, start, stop, 10**9, columns)
    return Scene(version, branch, start, stop, (), (), tuple(lines))


def _lines(
    history: History,
    branch: str,
    names: list[str],
    places: list[int],
    start: int,
    stop: int,
    columns: int,
    at_most: int,
) -> Iterable[Line]:
    others = _others(history, branch)[: max(1, OTHER_LINES // max(1, len(places)))]
    # A line of another branch gets a quarter of what one of the current branch gets: it is drawn faintly.
    share = columns // max(1, len(places) + len(places) * len(others) // 4)
    points = max(16, min(share, at_most))
    for place in places:
        window = history.window(names[place], start, stop, points, branch)
        if len(window.steps) or len(window.nonfinite):
            yield Line(place, branch, True, window, None)
    for other, left in others:
        for place in places:
            window = history.window(names[place], max(start, left), stop, max(16, points // 4), other)
            if len(window.steps) > 1:
                yield Line(place, other, False, window, None)


def _value(newest: tuple[int, float] | None) -> float | None:
    return None if newest is None else newest[1]


def _others(history: History, branch: str) -> list[tuple[str, int]]:
    """The newest other branches, each with the step at which it and the current line part."""
    known = {one.name: one for one in history.branches}
    parting = {one.name: one.start for one in known.values()}
    parting |= lineage(known, branch)
    parting.pop(branch, None)
    return list(parting.items())[::-1][:BRANCHES]


def lineage(branches: dict[str, Branch], branch: str) -> dict[str, int]:
    """The ancestors of a branch, each with the last step of it that led here."""
    left: dict[str, int] = {}
    here, until = branches[branch], 2**62
    while here.parent is not None:
        until = min(until, here.start)
        left[here.parent] = until
        here = branches[here.parent]
    return left


def marks(events: Sequence[Event], history: History) -> list[dict[str, Any]]:
    """What happened, for the charts and the list of events, in bounded number and JSON-able.

    Of very many the newest are taken, and of values that were not finite the first few, too: where it went
    wrong is what one looks for.
    """
    branch, known = history.branch, {one.name: one for one in history.branches}
    left = lineage(known, branch)
    events = [event for event in events if event.kind != "evaluated"]  # they are points of a curve
    names = {name: place for place, name in enumerate(history.names)}
    odd = [place for place, event in enumerate(events) if event.kind == "nonfinite"]
    rest = [place for place, event in enumerate(events) if event.kind != "nonfinite"]
    few = MARKS // 6
    chosen = sorted([*odd[:few], *odd[few:][-few:], *rest[-4 * few :]])
    return [
        {
            "kind": event.kind,
            "step": event.step,
            "text": clip(event.text),
            "faint": event.branch != branch and event.step > left.get(event.branch, -1),
            "id": names.get(str(event.data.get("name"))) if event.kind == "nonfinite" else None,
        }
        for event in map(events.__getitem__, chosen)
    ]


def head(run: Any) -> dict[str, Any]:
    """What the header shows of a run, JSON-able."""
    progress = run.progress
    return {
        "name": clip(str(run.name), 80),
        "status": progress.status,
        "message": clip(progress.message),
        "step": progress.step,
        "goal": progress.goal,
        "epoch": plain(progress.epoch),
        "elapsed": plain(progress.elapsed),
        "remaining": plain(progress.remaining),
        "steps_per_second": plain(progress.steps_per_second),
        "examples_per_second": plain(progress.examples_per_second),
        "device_bytes": progress.device_bytes,
        "device_limit": progress.device_limit,
        "branch": clip(progress.branch, 80),
        "snapshot_bytes": progress.snapshot_bytes,
        "snapshot_budget": progress.snapshot_budget,
        "hyperparameters": {name: plain(value) for name, value in run.hyperparameters.items()},
        "can_save": bool(run.can_save),
    }


def plain(number: float | None) -> float | str | None:
    """A number as JSON can have it: those that are not finite as JavaScript's text."""
    if number is None:
        return None
    number = float(number)
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else ("Infinity" if number > 0 else "-Infinity")


def clip(text: str, length: int = TEXT) -> str:
    """A text of bounded length."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
