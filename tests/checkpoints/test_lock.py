from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolshed.checkpoints import lock as locks
from toolshed.checkpoints.lock import Lock
from toolshed.errors import CheckpointWarning, RepositoryLockedError

HOLD = """
import sys
from pathlib import Path
from toolshed.checkpoints.lock import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_writer_is_refused_with_host_and_process_and_a_dead_one_is_succeeded(other, tmp_path):
    lock = Lock(tmp_path / "lock")
    message = f"{tmp_path} is being written by process {other.pid} on {socket.gethostname()!r} since 2"
    with pytest.raises(RepositoryLockedError, match=re.escape(message)) as caught:
        lock.acquire()
    assert "Close it there (close(), or end that process), or save to another directory." in str(caught.value)
    (tmp_path / "lock").write_text("not a word")
    with pytest.raises(RepositoryLockedError, match="is being written by another process"):
        lock.acquire()
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert lock.acquire()
    assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_taking_it_twice_is_taking_it_once(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.acquire()
    assert not lock.acquire()
    assert lock.exclusive
    with pytest.raises(RepositoryLockedError):
        Lock(tmp_path / "lock").acquire()
    lock.release()
    lock.release()
    assert Lock(tmp_path / "lock").acquire()


def test_it_goes_with_the_object_that_held_it(tmp_path):
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    del lock
    gc.collect()
    assert Lock(tmp_path / "lock").acquire()


@pytest.mark.parametrize("replaced", [False, True])
def test_one_whose_file_was_deleted_is_taken_anew(tmp_path, replaced):
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    (tmp_path / "lock").unlink()
    if replaced:
        (tmp_path / "lock").touch()
    assert lock.acquire()
    with pytest.raises(RepositoryLockedError):
        Lock(tmp_path / "lock").acquire()


def test_a_link_in_its_place_is_not_written_through(tmp_path):
    (tmp_path / "precious").write_text("x")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="symbolic link"):
        Lock(tmp_path / "lock").acquire()
    assert (tmp_path / "precious").read_text() == "x"


FORK = """
import os, sys
from pathlib import Path
from toolshed.checkpoints.lock import Lock
from toolshed.errors import RepositoryLockedError
path = Path(sys.argv[1])
lock = Lock(path)
lock.acquire()
child = os.fork()
if child == 0:
    try:
        lock.acquire()
    except RepositoryLockedError:
        os._exit(3)
    os._exit(4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
child = os.fork()
if child == 0:
    os.write(1, b"forked\\n")
    sys.stdin.read()  # outlives its parent
os._exit(0)
"""


def test_a_forked_process_neither_has_it_nor_keeps_it_from_others(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "3\n"
    assert process.stdout.readline() == "forked\n"
    process.wait()
    assert Lock(tmp_path / "lock").acquire()
    process.communicate()


def test_where_there_are_no_locks_it_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    lock = Lock(tmp_path / "lock")
    with pytest.warns(CheckpointWarning, match="has no locks. Let one process at a time save there"):
        assert lock.acquire()
    assert not lock.exclusive
