"""Runs: all that were kept in a directory, as a table; and several of them over each other."""

from __future__ import annotations

import datetime
import os
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from toolshed import paths
from toolshed.errors import StoreError
from toolshed.run.cursor import NEWEST
from toolshed.run.run import Run
from toolshed.run.saved import SavedRun
from toolshed.store import folders
from toolshed.store.folders import DEFAULT
from toolshed.views import compare_curves, tables

_ROWS = 30
_WORDS = ("run", "status", "begun (UTC)", "code", "damage")
_ODD = ("nan", "inf", "-inf")
_NEVER = datetime.datetime.min.replace(tzinfo=datetime.UTC)


def runs(path: str | os.PathLike[str] = DEFAULT) -> Runs:
    """The runs that were kept in a directory, the newest first.

    Args:
      path: the ``store`` that they were made with.

    Raises:
      StoreError: it is a file.

    Example:
      >>> import tempfile
      >>> runs(tempfile.mkdtemp()).names
      []
    """
    return Runs(path)


class Runs:
    """The runs that were kept in a directory, as they were when it was made: a table, and each by its name.

    `toolshed.runs` makes one.

    Attributes:
      path: the directory.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = folders.check_root(path)
        self._runs: dict[str, SavedRun] = {}
        self._broken: dict[str, str] = {}
        for folder in folders.runs_in(self.path):
            try:
                self._runs[folder.name] = SavedRun(folder)
            except StoreError as error:
                self._broken[folder.name] = str(error)
        newest = sorted(self._runs.items(), key=lambda pair: pair[1].created or _NEVER, reverse=True)
        self._runs = dict(newest)

    @property
    def names(self) -> list[str]:
        """The names of their directories, the newest first: what `toolshed.attach` takes."""
        return list(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[SavedRun]:
        return iter(self._runs.values())

    def __getitem__(self, which: str | int) -> SavedRun:
        """One of them, by name, or by its place in the table from 0.

        Raises:
          StoreError: there is no such run.
        """
        if isinstance(which, int) and -len(self) <= which < len(self):
            return list(self._runs.values())[which]
        if isinstance(which, str) and which in self._runs:
            return self._runs[which]
        if isinstance(which, str) and which in self._broken:
            raise StoreError(self._broken[which])
        close = paths.nearest(str(which), self._runs)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise StoreError(f"There is no run {which!r} among the {len(self)} in {self.path}.{hint}")

    def _cells(self) -> tuple[str, list[list[str]], int]:
        count = len(self._runs) + len(self._broken)
        title = f"Runs in {self.path} · {count} run{'' if count == 1 else 's'}"
        shown = list(self._runs.items())[:_ROWS]
        values = {name: _last_values(run) for name, run in shown}
        names = [name for name in NEWEST if any(name in found for found in values.values())]
        given = list(dict.fromkeys(key for _, run in shown for key in run.given))[:3]
        head = ["run", "status", "step", *names, *given, "begun (UTC)", "code"]
        rows = [_row(name, run, values[name], names, given) for name, run in shown]
        rows += [[name, f"damaged: {why}", *[""] * (len(head) - 2)] for name, why in self._broken.items()]
        cells = [[tables.plain(cell, 60) for cell in row] for row in (head, *rows)]
        return title, cells if rows else [], count - len(shown) - len(self._broken)

    def __repr__(self) -> str:
        title, cells, more = self._cells()
        return tables.as_text(title, cells, _WORDS, more)

    def _repr_html_(self) -> str:
        title, cells, more = self._cells()
        return tables.as_html(title, cells, _WORDS, more)


def _row(
    name: str, run: SavedRun, values: dict[str, float], names: Iterable[str], given: Iterable[str]
) -> list[str]:
    created = run.created
    commit = str(run.code.get("commit", ""))[:8] + (" + changes" if run.code.get("dirty") else "")
    numbers = [f"{values[one]:.4g}" if one in values else "" for one in names]
    config = [str(run.given[key]) if key in run.given else "" for key in given]
    time = "" if created is None else f"{created:%Y-%m-%d %H:%M:%S}"
    return [name, run.status, f"{run.step:,}", *numbers, *config, time, commit]


def _last_values(run: SavedRun) -> dict[str, float]:
    """The newest values, as the run wrote them beside its progress."""
    last = run.facts.get("last")
    found = last if isinstance(last, dict) else {}
    return {name: float(value) for name, value in found.items() if isinstance(value, float) or value in _ODD}


def compare_runs(
    which: Iterable[SavedRun | Run | str | os.PathLike[str]],
    names: str | Iterable[str] | None = None,
    *,
    path: str | os.PathLike[str] = DEFAULT,
    log: bool | Collection[str] = False,
    smoothing: float = 0.0,
    dark: bool = False,
) -> Any:
    """The same values of several runs over each other, as a matplotlib Figure.

    Args:
      which: runs: from `toolshed.runs`, by name or path, or live ones.
      names: of the values; None for training's and evaluation's.
      path: the directory in which names are looked up.
      log: log scale for all panels, or the names of those that are to have one.
      smoothing: from 0 to below 1.
      dark: for a dark ground.

    Raises:
      StoreError: there is no such run, or none has values of a name.
    """
    chosen: dict[str, Any] = {}
    for one in which:
        run = one if isinstance(one, (SavedRun, Run)) else SavedRun(folders.find(one, path))
        label, number = run.name, 2
        while label in chosen:
            label, number = f"{run.name} ({number})", number + 1
        chosen[label] = run.history
    known = list(dict.fromkeys(name for history in chosen.values() for name in history.names))
    wanted = [names] if isinstance(names, str) else names
    if wanted is None:
        wanted = [name for name in known if name.startswith(("train/", "eval/"))]
    wanted = list(wanted)
    absent = [name for name in wanted if name not in known]
    if absent:
        close = paths.nearest(absent[0], known)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise StoreError(f"None of these runs has values named {absent[0]!r}.{hint}")
    lines = {
        label: {name: history.series(name) for name in wanted if name in history.names}
        for label, history in chosen.items()
    }
    return compare_curves(lines, log=log, smoothing=smoothing, dark=dark)
