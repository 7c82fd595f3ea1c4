"""Panels: which logged values are drawn together, and how their names and numbers are written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

SPLITS = ("train", "eval")
"""The first parts of names that share a panel: ``train/loss`` and ``eval/loss`` are in panel ``loss``."""

# What a terminal takes for commands: ESC [ … letter, ESC ] … BEL or ESC \, and ESC with one sign.
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_LAST = ("optim", "speed", "memory")  # what a run logs by itself
_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Panel(NamedTuple):
    """A chart of its own.

    Attributes:
      title: what it shows.
      names: the values in it, train before eval.
    """

    title: str
    names: tuple[str, ...]


def split_of(name: str) -> str | None:
    """``train`` or ``eval`` where a name begins with it, else None."""
    split, _, rest = name.partition("/")
    return split if split in SPLITS and rest else None


def arrange(names: Iterable[str]) -> list[Panel]:
    """The panels of some values, in the order of their first appearance.

    >>> [panel.title for panel in arrange(["train/loss", "optim/grad_norm", "eval/loss"])]
    ['loss', 'optim/grad_norm']
    """
    together: dict[tuple[str, bool], list[str]] = {}
    for name in dict.fromkeys(names):
        split = split_of(name)
        title = name.removeprefix(f"{split}/") if split else name
        together.setdefault((title, split is not None), []).append(name)
    order = [f"{split}/" for split in SPLITS]
    return [
        Panel(title, tuple(sorted(members, key=lambda name: (split_of(name) or "") + "/" not in order[:1])))
        for (title, _), members in together.items()
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order in which one looks for them: the loss, metrics, what a person logged, the rest.

    >>> in_order(["speed/steps_per_second", "mine", "train/accuracy", "train/loss"])
    ['train/loss', 'train/accuracy', 'mine', 'speed/steps_per_second']
    """

    def rank(name: str) -> int:
        split, group = split_of(name), name.partition("/")[0]
        if split:
            return 0 if name == f"{split}/loss" else 1
        return 3 + _LAST.index(group) if group in _LAST else 2

    return sorted(names, key=rank)


def unit_of(name: str) -> str:
    """The unit that a name tells: ``steps/s``, ``bytes``, ``s``, or nothing.

    >>> unit_of("speed/steps_per_second")
    'steps/s'
    """
    last = name.rsplit("/", 1)[-1]
    if last.endswith("_per_second"):
        return f"{last.removesuffix('_per_second').replace('_', ' ')}/s"
    if last.endswith("bytes"):
        return "bytes"
    return "s" if last.endswith("seconds") else ""


def printable(text: str, limit: int | None = None) -> str:
    """A name from anywhere as one line of text: no commands to a terminal, no line breaks, not too long.

    Args:
      text: any text.
      limit: the largest number of characters; what is too much is left out in the middle.
    """
    if not (text.isascii() and text.isprintable() and "  " not in text):
        text = re.sub(r"\s+", " ", _ESCAPE.sub("", text))
        text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    if limit is None or len(text) <= limit:
        return text
    end = (limit - 1) // 2
    return f"{text[: limit - 1 - end]}…{text[len(text) - end :]}"


def common_start(names: Sequence[str]) -> int:
    """How many characters all paths begin with, up to a ``/``: what need not be written on each line.

    >>> common_start(["model/a/w", "model/b/w"])
    6
    """
    if len(names) < 2:
        return 0
    first, last = min(names), max(names)  # what these two share, all between them share
    pairs = enumerate(zip(first, last, strict=False))
    length = next((place for place, (a, b) in pairs if a != b), min(len(first), len(last)))
    return first[:length].rfind("/") + 1


def short(value: float, digits: int = 4) -> str:
    """A number in a few characters.

    >>> [short(value) for value in (0.000123456, 0.5, 12345.678, 2.5e7, float("nan"))]
    ['1.235e-4', '0.5', '12.35k', '25M', 'nan']
    """
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e18 or 0 < size < 1e-3:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}e{int(exponent)}"
    for factor, letter in _LARGE:
        if size >= max(factor, 1e4):
            return f"{value / factor:.{digits}g}{letter}"
    return f"{value:.{digits}g}"
