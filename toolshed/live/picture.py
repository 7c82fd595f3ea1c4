"""The picture of a run that stays in the notebook when its kernel is gone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from toolshed.live.chart import ALARM, HEIGHT, INK, MUTED, Sight, draw_panel
from toolshed.live.drawing import Drawing, Item, Text
from toolshed.live.heat import Heat
from toolshed.live.heat_picture import draw_heat, height_of
from toolshed.live.scene import Scene, clip
from toolshed.live.screen import duration
from toolshed.views.panels import short

WIDTH = 860
PANELS = 6
COLUMNS = 2000
"""Columns of all lines together: the picture lies in the notebook's file."""

_MARGIN, _GAP, _TOP, _LINE = 16, 20, 70, 15


def draw(
    head: Mapping[str, Any],
    scene: Scene,
    marks: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    maps: Sequence[Heat] = (),
    autopsy: Mapping[str, Any] | None = None,
) -> Drawing:
    """The dashboard's panels and the essence of its header, on a sheet of paper.

    Args:
      head: as `scene.head` gives it.
      scene: the whole of a history.
      marks: as `scene.marks` gives them.
      settings: what a person chose in the dashboard: panels, logarithmic axes, hidden lines.
      maps: what is watched, below the panels.
      autopsy: as `autopsies.newest` gives it, above them.
    """
    chosen = settings.get("panels", {})
    panels = [panel for panel in scene.panels if chosen.get(panel.title, panel.shown)][:PANELS]
    wide = len(panels) < 2
    width = WIDTH - 2 * _MARGIN if wide else (WIDTH - 2 * _MARGIN - _GAP) / 2
    rows = max(1, math.ceil(len(panels) / 2))
    failed = head["status"] == "failed"
    items: list[Item] = [
        Text(_MARGIN, 26, clip(str(head["name"]), 80), INK, 15, bold=True),
        Text(_MARGIN, 44, sentence(head), MUTED, 12),
        Text(_MARGIN, 60, clip(str(head["message"]), 130), ALARM if failed else MUTED, 12),
    ]
    told = _tell(autopsy or {})
    items += [text._replace(y=_TOP + 8 + _LINE * i) for i, text in enumerate(told)]
    top = _TOP + (len(told) * _LINE + 12 if told else 0)
    for place, panel in enumerate(panels):
        x, y = _MARGIN + place % 2 * (width + _GAP), top + place // 2 * HEIGHT
        items += draw_panel(see(panel, scene, marks, settings), x, y, width)
    if not panels:
        items.append(Text(WIDTH / 2, top + HEIGHT / 2, "No values yet.", MUTED, 12, "middle"))
    bottom = top + rows * HEIGHT
    start, stop = ends(scene)
    for one in maps:
        items += draw_heat(one, _MARGIN, bottom, WIDTH - 2 * _MARGIN, start, stop)
        bottom += height_of(one)
    return Drawing(WIDTH, bottom, items)


def _tell(autopsy: Mapping[str, Any]) -> list[Text]:
    """An autopsy as lines of text, and what is not finite in its batch."""
    if not autopsy:
        return []
    title = f"Autopsy of step {autopsy['step']:,}: {autopsy['headline']}"
    lines = [f"{label} {text}".strip() for label, text in autopsy["lines"]]
    lines += [autopsy["place"]] if autopsy["place"] else []
    for path, kind, _, _, nan, infinite, examples in autopsy["fields"]:
        if (nan, infinite) != ("0", "0"):
            lines.append(f"{path} {kind}: {nan} NaN, {infinite} infinite, in example {examples}")
    first = Text(_MARGIN, 0, clip(title, 120), ALARM, 12, bold=True)
    return [first, *(Text(_MARGIN + 12, 0, clip(line, 130), INK, 11) for line in lines)]


def ends(scene: Scene) -> tuple[float, float]:
    """The first and the last step of the axes; they are never the same."""
    start, stop = float(scene.first), float(scene.last)
    return (start, stop) if stop > start else (start - 1, start + 1)


def see(panel: Any, scene: Scene, marks: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> Sight:
    """What a panel shows of a scene, with what a person chose for it."""
    hidden = {label for _, label in panel.lines if f"{panel.title}\n{label}" in settings.get("off", [])}
    places = {place for place, label in panel.lines if label not in hidden}
    others = f"{panel.title}\nothers" not in settings.get("off", [])
    curves = [curve for curve in scene.lines if curve.place in places and (curve.current or others)]
    return Sight(panel, curves, marks, *ends(scene), panel.title in settings.get("log", []))


def sentence(head: Mapping[str, Any]) -> str:
    """How a run fares, in one line: ``paused at step 900 of 2,000 · epoch 1.20 · 0:40 · on main``."""
    goal = "" if head["goal"] is None else f" of {head['goal']:,}"
    parts = [f"{head['status']} at step {head['step']:,}{goal}"]
    if head["epoch"] is not None:
        parts.append(f"epoch {float(head['epoch']):.2f}")
    parts.append(duration(float(head["elapsed"])))
    if head["steps_per_second"] is not None:
        speed = float(head["steps_per_second"])
        parts.append(f"{speed:,.0f} steps/s" if speed >= 100 else f"{short(speed, 3)} steps/s")
    return " · ".join([*parts, f"on {head['branch']}"])


def describe(head: Mapping[str, Any], scene: Scene) -> str:
    """The picture in words: the run's name, how it fares, and its newest metrics."""
    newest = [
        f"{scene.names[line.place]} {short(line.last)}"
        for line in scene.lines
        if line.last is not None and scene.names[line.place].startswith(("train/", "eval/"))
    ]
    words = [f"{head['name']}: {sentence(head)}", *([", ".join(newest[:8])] if newest else [])]
    return " · ".join([*words, *([str(head["message"])] if head["message"] else [])])
