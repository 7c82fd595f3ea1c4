"""A repository as a table, for a terminal and for a notebook. All that comes from files is shown as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from toolshed.checkpoints.manifest import Manifest
from toolshed.views import format_bytes, tables
from toolshed.views.tables import plain

_ROWS = 20
_METRICS = 4

_SAVED, _TAGS, _CONDITION = "saved (UTC)", "tags", "condition"
_WORDS = (_SAVED, _TAGS, _CONDITION)


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


def as_text(title: str, rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    return tables.as_text(title, columns(rows), _WORDS, len(rows) - _ROWS)


def as_html(title: str, rows: Sequence[Row]) -> str:
    """The table for a notebook, in the notebook's own colours."""
    return tables.as_html(title, columns(rows), _WORDS, len(rows) - _ROWS)
