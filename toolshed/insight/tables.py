"""Plain tables: how results read in a terminal or a cell."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float) -> str:
    """A number in about four digits: ``0.01235``, ``1.2e-08``, ``nan``."""
    return f"{value:.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines in columns.

    Args:
      head: the titles of the columns.
      rows: as many words each.
      left: how many of the first columns are words, flush left; the others are numbers, flush right.
    """
    if not rows:
        return []
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = [
        [
            word.ljust(width) if i < left else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return ["  ".join(words).rstrip() for words in aligned]
