"""Which values share a panel of the dashboard, in which order panels come, and which are shown at first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from toolshed.views.panels import arrange, in_order, split_of

NAMES = 40
"""Names that are drawn; a run may log more."""
SHOWN = 8
"""Panels that are shown without being asked for."""

_OWN = ("optim/", "speed/", "memory/")
_TELLING = ("optim/learning_rate", "optim/grad_norm")  # what of the run's own values is shown at first


class Panel(NamedTuple):
    """Values that are drawn into one chart.

    Attributes:
      title: the values' common name. No other panel has it.
      lines: each value's place among all names, and what its line is called here.
      shown: whether it is shown without being asked for.
    """

    title: str
    lines: tuple[tuple[int, str], ...]
    shown: bool


def lay_out(names: Sequence[str]) -> tuple[Panel, ...]:
    """The panels of a dashboard: ``train/x`` and ``eval/x`` in one called ``x``, each other name in its own.

    Metrics come first and the loss before them, then what a person logged, then the run's own values. Of
    very many names only the first `NAMES` in this order are taken.

    Example:
      >>> [panel.title for panel in lay_out(["optim/grad_norm", "train/loss", "eval/loss"])]
      ['loss', 'optim/grad_norm']
    """
    places = {name: place for place, name in enumerate(names)}
    lines: dict[str, list[tuple[int, str]]] = {}
    # A metric, and a value that is called as the metric is, share a panel here.
    for panel in arrange(in_order(names)):
        own = [(places[name], split_of(name) or _last_part(name)) for name in panel.names]
        lines.setdefault(panel.title, []).extend(own)
    panels, room, seats = [], NAMES, SHOWN
    for title, all_lines in lines.items():
        own = tuple(all_lines[:room])
        if own:
            shown = seats > 0 and (not title.startswith(_OWN) or title in _TELLING)
            panels.append(Panel(title, own, shown))
            room, seats = room - len(own), seats - shown
    return tuple(panels)


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] or name
