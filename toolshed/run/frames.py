"""A history as a table, in memory and in files. Needs the extra ``frames``, imported at first use."""

from __future__ import annotations

import importlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolshed.errors import ToolshedError
from toolshed.run.track import Series


def wide(series: Mapping[str, Series]) -> Any:
    """A DataFrame with a row for each step that any series has, and a column for each series."""
    pandas = load("pandas")
    different: list[Any] = [np.zeros(0, np.int64)]
    for one in series.values():  # most are logged at the same steps; to sort these all would take longer
        if not any(np.array_equal(one.steps, steps) for steps in different):
            different.append(one.steps)
    steps = np.unique(np.concatenate(different))
    columns = {}
    for name, one in series.items():
        columns[name] = np.full(len(steps), np.nan, np.float32)
        columns[name][np.searchsorted(steps, one.steps)] = one.values
    return pandas.DataFrame(columns, index=pandas.Index(steps, name="step"))


def long(parts: Iterable[tuple[str, str, Series]]) -> Any:
    """A DataFrame with a row for each value: branch, name, step, value."""
    pandas = load("pandas")
    kept = [part for part in parts if len(part[2].steps)]
    counts = [len(series.steps) for _, _, series in kept]
    return pandas.DataFrame(
        {
            "branch": _repeated(pandas, [branch for branch, _, _ in kept], counts),
            "name": _repeated(pandas, [name for _, name, _ in kept], counts),
            "step": np.concatenate([np.zeros(0, np.int64), *(series.steps for _, _, series in kept)]),
            "value": np.concatenate([np.zeros(0, np.float32), *(series.values for _, _, series in kept)]),
        }
    )


def _repeated(pandas: Any, words: list[str], counts: list[int]) -> Any:
    """Each word as often as said, as categories: a code of a byte or two each."""
    different = list(dict.fromkeys(words))
    codes = np.repeat(np.array([different.index(word) for word in words], np.int64), counts)
    return pandas.Categorical.from_codes(codes, categories=different)


def write_csv(frame: Any, path: str | os.PathLike[str], *, index: bool) -> None:
    """Writes a DataFrame as comma-separated values, whole or not at all."""
    write_whole(path, lambda file: frame.to_csv(file, index=index))


def write_parquet(frame: Any, path: str | os.PathLike[str], *, index: bool) -> None:
    """Writes a DataFrame as a Parquet file, whole or not at all."""
    load("pyarrow")
    write_whole(path, lambda file: frame.to_parquet(file, engine="pyarrow", index=index))


def write_whole(path: str | os.PathLike[str], write: Callable[[Any], Any]) -> None:
    """Writes a file beside its place and moves it there once it is whole and on the disk.

    Whatever interrupts, the path holds what it held before, or all of the new.
    """
    place = Path(path)
    aside = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        with open(aside, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)


def load(package: str) -> Any:
    """A package of the extra.

    Raises:
      ToolshedError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ToolshedError(
            f"A history as a table needs {package}, which is not installed. Install it with the extra:"
            " pip install 'jax-toolshed[frames]'."
        ) from error
