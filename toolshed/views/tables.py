"""Tables of text, for a terminal and for a notebook. Whatever is in a cell is shown as text."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

_LONGEST = 40  # characters of one cell
_CELL = "padding:.2em .8em .2em 0;border-bottom:1px solid rgba(128,128,128,.3);"
_TABLE = "border-collapse:collapse;font-variant-numeric:tabular-nums;"


def plain(text: str, longest: int = _LONGEST) -> str:
    """Text in one line without anything that a terminal would act on."""
    shown = "".join(character if character.isprintable() else "�" for character in text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def as_text(title: str, cells: Sequence[Sequence[str]], words: Collection[str], more: int = 0) -> str:
    """A table for a terminal.

    Args:
      title: the line above it.
      cells: rows of cells, the columns' titles first; without any other row there is no table.
      words: titles of the columns that hold words, which begin at the left; numbers end at the right.
      more: how many rows are not shown.
    """
    title = plain(title, 300)
    if len(cells) < 2:
        return title
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if name in words else cell.rjust(width)
            for name, cell, width in zip(cells[0], row, widths, strict=True)
        )
        for row in cells
    ]
    return "\n".join([title, *(line.rstrip() for line in lines), *_more(more)])


def as_html(title: str, cells: Sequence[Sequence[str]], words: Collection[str], more: int = 0) -> str:
    """The same for a notebook, in the notebook's own colours."""
    title = f"<div><b>{html.escape(plain(title, 300))}</b></div>"
    if len(cells) < 2:
        return title
    head, *body = cells
    aligns = ["left" if name in words else "right" for name in head]
    lines = [_row("th", head, aligns), *(_row("td", row, aligns) for row in body)]
    below = "".join(f"<div>{html.escape(line)}</div>" for line in _more(more))
    return f'{title}<table style="{_TABLE}">{"".join(lines)}</table>{below}'


def _row(tag: str, cells: Sequence[str], aligns: Sequence[str]) -> str:
    return (
        "<tr>"
        + "".join(
            f'<{tag} style="{_CELL}text-align:{align}">{html.escape(cell)}</{tag}>'
            for cell, align in zip(cells, aligns, strict=True)
        )
        + "</tr>"
    )


def _more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []
