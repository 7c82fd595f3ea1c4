"""A repository as a table, for a terminal and for a notebook. All that comes from files is shown as text."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from toolshed.checkpoints.manifest import Manifest
from toolshed.views import format_bytes

_ROWS = 20
_METRICS = 4
_TEXT = 40  # characters of one cell

_SAVED, _TAGS, _CONDITION = "saved (UTC)", "tags", "condition"
_WORDS = (_SAVED, _TAGS, _CONDITION)
_CELL = "padding:.2em .8em .2em 0;border-bottom:1px solid rgba(128,128,128,.3);"
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;"


class Row(NamedTuple):
    """One checkpoint.

    Attributes:
      step: its step.
      manifest: what is known of it; None if it is damaged.
      condition: ``"verified"``, ``"whole"`` or what is wrong.
    """

    step: int
    manifest: Manifest | None
    condition: str


def columns(rows: Sequence[Row]) -> list[list[str]]:
    """The table's cells, a row of titles first; the checkpoint written last comes first."""
    shown = list(reversed(rows))[:_ROWS]
    manifests = [row.manifest for row in shown if row.manifest is not None]
    names = list(dict.fromkeys(name for manifest in manifests for name in manifest.metrics))[:_METRICS]
    has_tags = any(manifest.tags for manifest in manifests)
    titles = ["step", _SAVED, *([_TAGS] if has_tags else []), *names, "size", _CONDITION]
    return [[plain(title) for title in titles], *(_cells(row, names, has_tags) for row in shown)]


def _cells(row: Row, names: Iterable[str], has_tags: bool) -> list[str]:
    manifest = row.manifest
    if manifest is None:
        blank = ["" for _ in (*names, *([""] if has_tags else []))]
        return [f"{row.step:,}", "", *blank, "", plain(row.condition, 200)]
    tags = [plain(", ".join(manifest.tags))] if has_tags else []
    metrics = [f"{manifest.metrics[name]:.6g}" if name in manifest.metrics else "" for name in names]
    time = f"{manifest.time:%Y-%m-%d %H:%M:%S}"
    return [f"{row.step:,}", time, *tags, *metrics, format_bytes(manifest.nbytes), plain(row.condition, 200)]


def plain(text: str, longest: int = _TEXT) -> str:
    """Text in one line without anything that a terminal would act on."""
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def as_text(title: str, rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    if not rows:
        return plain(title, 300)
    cells = columns(rows)
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if title in _WORDS else cell.rjust(width)
            for title, cell, width in zip(cells[0], row, widths, strict=True)
        )
        for row in cells
    ]
    return "\n".join([plain(title, 300), *(line.rstrip() for line in lines), *_more(rows)])


def as_html(title: str, rows: Sequence[Row]) -> str:
    """The table for a notebook, in the notebook's own colours."""
    title = f"<div><b>{html.escape(plain(title, 300))}</b></div>"
    if not rows:
        return title
    head, *body = columns(rows)
    # words to the left, numbers to the right
    aligns = ["left" if title in _WORDS else "right" for title in head]
    lines = [_html_row("th", head, aligns), *(_html_row("td", row, aligns) for row in body)]
    more = "".join(f"<div>{html.escape(line)}</div>" for line in _more(rows))
    return f'{title}<table style="{_TABLE}">{"".join(lines)}</table>{more}'


def _html_row(tag: str, cells: Sequence[str], aligns: Sequence[str]) -> str:
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="{_CELL}text-align:{align}">{html.escape(cell)}</{tag}>'
            for cell, align in zip(cells, aligns, strict=True)
        )
        + "</tr>"
    )


def _more(rows: Sequence[Row]) -> list[str]:
    return [f"and {len(rows) - _ROWS} more"] if len(rows) > _ROWS else []
