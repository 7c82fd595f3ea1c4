"""One writer at a time: a file that the operating system locks for as long as its process lives.

The lock goes with its process, however that ends, so one that a killed process held is there for the
next. Readers take none. Within a process all repositories of one root share it.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import warnings
import weakref
from pathlib import Path

from toolshed.errors import CheckpointWarning, RepositoryLockedError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_NOT_SUPPORTED = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL)


class Lock:
    """The lock on one file. Not to be carried over a fork: the child has to take it anew, and cannot.

    Attributes:
      exclusive: True if the operating system sees to it; False where the file system has no locks.
    """

    def __init__(self, path: Path):
        self.path = path
        self.exclusive = False
        self._handle: int | None = None
        self._guard = threading.Lock()
        _ALL.add(self)

    def acquire(self) -> bool:
        """Takes the lock; True if it was not held before. The file's directory must be there.

        Raises:
          RepositoryLockedError: another process has it.
          OSError: the file cannot be opened.
        """
        with self._guard:
            if self._handle is not None and _is_at(self._handle, self.path):
                return False
            self._release()
            # a link in its place, in a directory of a stranger's, is not followed
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(self.path, flags, 0o644)
            try:
                self.exclusive = self._lock(handle)
                owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(owner).encode(), 0)
            except BaseException:
                os.close(handle)
                raise
            self._handle = handle
            self._finalizer = weakref.finalize(self, os.close, handle)
            return True

    def release(self) -> None:
        """Gives the lock up, if it is held."""
        with self._guard:
            self._release()

    def forget(self) -> None:
        """Lets go of the file in a forked process, where the parent goes on holding it."""
        self._guard = threading.Lock()
        self._release()

    def _release(self) -> None:
        if self._handle is not None:
            self._handle = None
            self._finalizer()

    def _lock(self, handle: int) -> bool:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no file locks")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RepositoryLockedError(
                f"{self.path.parent} is being written by {_owner(handle)}. Close it there (close(), or end"
                " that process), or save to another directory. Reading needs no lock."
            ) from None
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            warnings.warn(
                f"The file system of {self.path.parent} has no locks. Let one process at a time save there.",
                CheckpointWarning,
                stacklevel=2,
            )
            return False
        return True


_ALL: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_ALL):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one under its name, and not deleted or replaced."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _owner(handle: int) -> str:
    """Who wrote the lock file, in words."""
    try:
        owner = json.loads(os.pread(handle, 1000, 0))
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(owner["since"])))
        return f"process {int(owner['pid'])} on {str(owner['host'])[:100]!r} since {since}"
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return "another process"
