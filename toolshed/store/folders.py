"""Where runs lie: one directory each, named after the run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from toolshed import paths
from toolshed.errors import StoreError

DATABASE = "run.sqlite"
CHECKPOINTS = "checkpoints"
LOCK = "lock"
DEFAULT = "runs"
"""The directory of runs, where no other is named."""

_LONGEST = 60  # characters of a directory's name


def check_root(path: str | os.PathLike[str]) -> Path:
    """The directory that runs lie in, as an absolute path.

    Raises:
      StoreError: it is no path, or a file.
    """
    try:
        root = Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
        is_file = root.exists() and not root.is_dir()
    except (TypeError, ValueError) as error:
        raise StoreError(f"Expected a path to a directory of runs, got {path!r}: {error}.") from None
    if is_file:
        raise StoreError(f"{root} is a file; expected a directory in which each run has one of its own.")
    return root


def directory_name(name: str) -> str:
    """A run's name as that of a directory: letters, digits, dots, dashes; never a way out of its parent."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_LONGEST].strip("-.")
    return plain or "run"


def claim(root: Path, name: str) -> Path:
    """Makes a new directory for a run: ``name``, or ``name-2`` where there is one already.

    Raises:
      OSError: it cannot be made.
    """
    root.mkdir(parents=True, exist_ok=True)
    stem, number = directory_name(name), 1
    while True:
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def runs_in(root: Path) -> list[Path]:
    """The directories of runs, in the order of their names. Links are not followed."""
    try:
        entries = sorted(root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry for entry in entries if not entry.is_symlink() and (entry / DATABASE).is_file()]


def find(name_or_path: str | os.PathLike[str], root: str | os.PathLike[str] = DEFAULT) -> Path:
    """The directory of a run, by its name among those in ``root``, or by its path.

    Raises:
      StoreError: there is none; those with near names are named.
    """
    if isinstance(name_or_path, str):
        named = [folder for folder in runs_in(check_root(root)) if folder.name == name_or_path]
        named = named or [
            folder for folder in runs_in(check_root(root)) if folder.name == directory_name(name_or_path)
        ]
        if named:
            return named[0]
    folder = check_root(name_or_path)
    if (folder / DATABASE).is_file():
        return folder
    known = [found.name for found in runs_in(check_root(root))]
    close = paths.nearest(str(name_or_path), known)
    there = (
        f"there are {', '.join(known[:8])}{', …' if len(known) > 8 else ''}" if known else "there are none"
    )
    hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"In {check_root(root)} {there}."
    raise StoreError(f"There is no run {str(name_or_path)!r}. {hint}")
