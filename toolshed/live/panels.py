"""Which values share a panel, in which order panels come, and which are shown without being asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SPLITS = ("train", "eval")
NAMES = 40
"""Names that are drawn; a run may log more."""
SHOWN = 8
"""Panels that are shown without being asked for."""

_LAST = ("optim", "speed", "memory")  # the run's own values come after a person's
_QUIET = ("optim/update_norm", "speed/", "memory/")  # the header says these, or another panel nearly does


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


def arrange(names: Sequence[str]) -> tuple[Panel, ...]:
    """Panels for values: ``train/x`` and ``eval/x`` in one called ``x``, every other name in its own.

    Metrics come first and the loss before them, then what a person logged, then the run's own values. Of
    very many names only the first `NAMES` in this order are taken.

    Example:
      >>> [panel.title for panel in arrange(["optim/grad_norm", "train/loss", "eval/loss"])]
      ['loss', 'optim/grad_norm']
    """
    lines: dict[str, list[tuple[int, str]]] = {}
    for place, name in enumerate(names):
        split, _, rest = name.partition("/")
        title = rest if split in SPLITS and rest else name
        lines.setdefault(title, []).append((place, split if title != name else _last_part(name)))
    titles = sorted(lines, key=lambda title: _rank(title, lines[title]))
    panels, room, places = [], NAMES, SHOWN
    for title in titles:
        if room <= 0:
            break
        own = sorted(lines[title][:room], key=lambda line: _split_rank(line[1]))
        shown = places > 0 and not title.startswith(_QUIET)
        panels.append(Panel(title, tuple(own), shown))
        room, places = room - len(own), places - shown
    return tuple(panels)


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] or name


def _split_rank(label: str) -> int:
    return SPLITS.index(label) if label in SPLITS else len(SPLITS)


def _rank(title: str, lines: list[tuple[int, str]]) -> tuple[int, int]:
    """Where a panel comes: its group, then when its first value appeared."""
    place, label = lines[0]
    if label in SPLITS:
        return (0 if title == "loss" else 1), place
    group = title.partition("/")[0]
    return (3 + _LAST.index(group) if group in _LAST else 2), place
