"""Directories: where checkpoints lie, and how they come and go in one step each.

    <root>/lock                                who writes here
    <root>/steps/<step>-<generation>/          one checkpoint, whole: manifest.json, structure.json, arrays/
    <root>/staging/<random>/                   one that is being written
    <root>/trash/<random>/                     one that is being deleted

A checkpoint is written in ``staging``, brought to the disk itself file by file, and renamed into
``steps``. To be deleted it is renamed into ``trash`` first. So a name under ``steps`` stands for a whole
checkpoint at any moment, whatever is killed. The generation counts the checkpoints ever written here, so
that two of the same step have two names and the order of writing needs no clock.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from toolshed.errors import CheckpointDamagedError, CheckpointError

MANIFEST = "manifest.json"
STRUCTURE = "structure.json"
ARRAYS = "arrays"
MAX_STEP = 10**12 - 1

_NAME = re.compile(r"([0-9]{12})-([0-9]{9})")
_MAX_FILES = 100_000


class Entry(NamedTuple):
    """The directory of one checkpoint.

    Attributes:
      step: the step that it is of.
      generation: its number in the order of writing.
      folder: where it is.
    """

    step: int
    generation: int
    folder: Path

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.folder.name

    def is_there(self) -> bool:
        """True unless it was deleted since."""
        return self.folder.is_symlink() or self.folder.exists()

    def mark(self) -> Any:
        """What changes whenever the manifest is written; None if there is none, or only by a link."""
        try:
            found = (self.folder / MANIFEST).stat(follow_symlinks=False)
        except OSError:
            return None
        return None if self.folder.is_symlink() else (found.st_mtime_ns, found.st_ino, found.st_size)


class Layout:
    """The directories under one root. Creates none of them before `prepare`."""

    def __init__(self, root: Path):
        self.root = root
        self.lock = root / "lock"
        self.steps = root / "steps"
        self._staging = root / "staging"
        self._trash = root / "trash"

    def prepare(self) -> None:
        """Creates what is missing.

        Raises:
          CheckpointError: one of the directories is a link that leads elsewhere.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in (self.steps, self._staging, self._trash):
            if folder.is_symlink():
                raise CheckpointError(f"{folder} is a symbolic link; expected a directory.")
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                sync(self.root)

    def entries(self) -> list[Entry]:
        """The checkpoints by their names, in the order of writing. Reads no file."""
        if self.steps.is_symlink():
            raise CheckpointDamagedError(f"{self.steps} is a symbolic link; expected a directory.")
        try:
            with os.scandir(self.steps) as found:
                names = [item.name for item in found]
        except FileNotFoundError:
            return []
        except NotADirectoryError:
            raise CheckpointError(f"{self.steps} is a file; expected a directory.") from None
        matches = [(name, _NAME.fullmatch(name)) for name in names]
        entries = [Entry(int(match[1]), int(match[2]), self.steps / name) for name, match in matches if match]
        return sorted(entries, key=lambda entry: (entry.generation, entry.step))

    def strangers(self) -> list[str]:
        """Names under ``steps`` that are no checkpoint's."""
        try:
            return sorted(name for name in os.listdir(self.steps) if not _NAME.fullmatch(name))
        except OSError:
            return []

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A new directory to write a checkpoint in; whatever is still there at the end is removed."""
        folder = self._staging / secrets.token_hex(8)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def next_generation(self) -> int:
        """The number of the next checkpoint to be published."""
        return max((entry.generation for entry in self.entries()), default=0) + 1

    def publish(self, folder: Path, step: int, generation: int) -> Entry:
        """Makes a finished directory a checkpoint, in one step.

        All of it but the manifest has to be on the disk already.
        """
        entry = Entry(step, generation, self.steps / f"{step:012d}-{generation:09d}")
        sync(folder / MANIFEST)
        sync(folder)
        os.rename(folder, entry.folder)
        sync(self.steps)
        return entry

    def discard(self, entry: Entry) -> None:
        """Deletes a checkpoint: out of sight in one step, then off the disk."""
        trash = self._trash / secrets.token_hex(8)
        os.rename(entry.folder, trash)
        sync(self.steps)
        if trash.is_symlink():
            trash.unlink()
        else:
            shutil.rmtree(trash, ignore_errors=True)

    def clean(self) -> None:
        """Removes what writers before left behind. Only for the one that holds the lock."""
        for folder in (self._staging, self._trash):
            for item in folder.iterdir():
                if item.is_dir() and not item.is_symlink():
                    shutil.rmtree(item, ignore_errors=True)
                else:
                    item.unlink(missing_ok=True)

    def replace_file(self, path: Path, content: bytes) -> None:
        """Replaces a file's content in one step."""
        with self.staging() as folder:
            new = folder / path.name
            new.write_bytes(content)
            sync(new)
            os.replace(new, path)
            sync(path.parent)


def check_path(path: Any) -> Path:
    """The directory of a repository, absolute and with no links in it.

    Raises:
      CheckpointError: it is a file, another machine's, or no path at all.
    """
    if not isinstance(path, (str, os.PathLike)) or not str(path):
        raise CheckpointError(f"Expected a directory's path, got {path!r}.")
    if "://" in str(path):
        raise CheckpointError(f"{str(path)!r} is no local path; a repository is a directory of this machine.")
    try:
        root = Path(path).expanduser().resolve()
        is_file = root.exists() and not root.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{str(path)[:100]!r} cannot be a directory: {error}.") from None
    if is_file:
        raise CheckpointError(f"{root} is a file; a repository is a directory.")
    return root


def check_step(step: Any) -> int:
    """A step's number.

    Raises:
      CheckpointError: it is none.
    """
    try:
        number = -1 if isinstance(step, bool) else operator.index(step)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_STEP:
        raise CheckpointError(f"A step is a whole number from 0 to {MAX_STEP:,}; got {str(step)[:40]!r}.")
    return number


def files_in(folder: Path) -> dict[str, int]:
    """The sizes of all files under a directory, by their path in it with ``/``.

    Raises:
      CheckpointDamagedError: there is a link, or anything else that is neither file nor directory.
    """
    sizes: dict[str, int] = {}
    folders = [(folder, "")]
    while folders:
        at, prefix = folders.pop()
        with os.scandir(at) as found:
            for item in found:
                mode = item.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.append((Path(item.path), f"{prefix}{item.name}/"))
                elif stat.S_ISREG(mode):
                    sizes[prefix + item.name] = item.stat(follow_symlinks=False).st_size
                else:
                    what = "a symbolic link" if stat.S_ISLNK(mode) else "no ordinary file"
                    raise CheckpointDamagedError(f"{prefix}{item.name} is {what}")
                if len(sizes) + len(folders) > _MAX_FILES:
                    raise CheckpointDamagedError(f"it has more than {_MAX_FILES:,} files")
    return sizes


def sync_tree(folder: Path) -> None:
    """Has the disk keep all files and names under a directory; waits for it."""
    for at, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(at, name))
        sync(Path(at))


def sync(path: Path) -> None:
    """Has the disk keep one file, or the names in one directory; waits for it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems know no fsync of a directory
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(handle)
