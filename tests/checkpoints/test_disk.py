"""Disks that are full, read-only or gone: training goes on, the failure is seen, the next save works."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checkpoints.states import bits, small_state
from toolshed import TrainState
from toolshed.checkpoints import Repository
from toolshed.errors import SaveError


def big_state(n: int) -> TrainState:
    """600 kB that cannot be compressed."""
    return small_state(n, params={"w": jax.random.normal(jax.random.key(n), (150_000,))})


def used(folder: Path) -> int:
    """Bytes in all files under a directory."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def failing(repository: Repository, n: int, caplog: Any) -> SaveError:
    """Saves in the background; the failure, which has to be in the log within a second of its end."""
    caplog.clear()
    saving = repository.save(big_state(n))  # raises nothing: a training would go on
    with pytest.raises(SaveError) as caught:
        saving.wait()
    assert saving.status == "failed"
    deadline = time.monotonic() + 1
    while not caplog.records:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(caught.value) in caplog.text
    return caught.value


def still_right(repository: Repository, steps: list[int]) -> None:
    """Whether these steps are there, whole, and nothing else takes room."""
    assert repository.steps() == steps
    assert repository.verify() == ()
    assert bits(repository.load(like=big_state(99))) == bits(big_state(steps[-1]))
    for name in ("staging", "trash"):
        assert list((repository.path / name).iterdir()) == []


# --- full -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk of 4 MB: a real one in memory where this process may mount one.

    Where it may not, files cannot grow beyond 300 kB for as long as the file ``full`` is there, which is a
    limit of the operating system's as well.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    """Leaves 300 kB of room, and gives the rest back at the end."""
    if os.path.ismount(folder):
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"x" * 10_000)
        filler.touch()
        os.truncate(filler, max(0, filler.stat().st_size - 300_000))
        yield
        filler.unlink()
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        yield
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Some of orbax's threads, which go on for a moment when one of them has failed, find their loop closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("noticed_before", [True, False])
def test_a_full_disk(tmp_path, caplog, monkeypatch, noticed_before):
    from toolshed.checkpoints import saving

    if not noticed_before:  # the space went while the checkpoint was being written
        monkeypatch.setattr(saving.Writer, "_check_space", lambda self, job: None)
    with small_disk(tmp_path / "disk") as disk:
        repository = Repository(disk / "repository")
        repository.save(big_state(1), wait=True)
        before = used(repository.path)
        with full(disk):
            for n in (2, 3):
                message = str(failing(repository, n, caplog))
                if noticed_before and os.path.ismount(disk):
                    assert "No space for a checkpoint in" in message
                else:
                    reason = "No space left on device" if os.path.ismount(disk) else "File too large"
                    assert message == f"A checkpoint was not saved in {repository.path}: {reason}."
                assert used(repository.path) == before  # what was written is gone again
        still_right(repository, [1])
        repository.save(big_state(4), wait=True)
        still_right(repository, [1, 4])
        repository.close()


# --- read-only --------------------------------------------------------------------------------------


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written below a directory; root becomes nobody for as long."""
    folders = [path for path in (folder, *folder.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path in folders:
            path.chmod(0o755)


@pytest.fixture
def everyones() -> Iterator[Path]:
    """A directory that everyone may enter, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_disk_that_becomes_read_only(everyones, caplog):
    repository = Repository(everyones / "repository")
    repository.save(big_state(1), wait=True)
    with read_only(everyones):
        error = failing(repository, 2, caplog)
        assert str(error).endswith("repository: Permission denied.")
        assert bits(Repository(repository.path).load(like=big_state(9))) == bits(big_state(1))
        for change in (lambda: repository.tag(1, "mine"), lambda: repository.delete(1)):
            with pytest.raises(SaveError, match="repository was not changed: Permission denied"):
                change()
    repository.save(big_state(3), wait=True)
    still_right(repository, [1, 3])
    repository.close()


def test_a_directory_that_may_not_be_made(everyones, caplog):
    with read_only(everyones):
        repository = Repository(everyones / "a" / "b")
        assert "Permission denied" in str(failing(repository, 1, caplog))
    repository.save(big_state(2), wait=True)
    still_right(repository, [2])
    repository.close()


# --- gone -------------------------------------------------------------------------------------------


def test_a_directory_that_is_removed_between_saves(tmp_path):
    repository = Repository(tmp_path / "repository")
    repository.save(big_state(1), wait=True)
    shutil.rmtree(repository.path)
    assert repository.latest is None
    repository.save(big_state(2), wait=True)
    still_right(repository, [2])
    assert Repository(repository.path)._writer.lock.acquire() is False  # it is locked there, too
    repository.close()


def test_a_directory_that_is_removed_while_it_is_saved_to(tmp_path, caplog):
    class Removing:
        """A metric that removes the repository as it is fetched, when the arrays are written."""

        shape = ()

        def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
            shutil.rmtree(tmp_path / "repository")
            return np.asarray(1.0)

    repository = Repository(tmp_path / "repository")
    saving = repository.save(big_state(1), metrics={"m": Removing()})
    with pytest.raises(SaveError, match=r"not saved in .*: No such file or directory"):
        saving.wait()
    repository.save(big_state(2), wait=True)
    still_right(repository, [2])
    repository.close()


def test_a_path_that_becomes_a_file_and_a_directory_again(tmp_path, caplog):
    repository = Repository(tmp_path / "repository")
    (tmp_path / "repository").write_text("x")
    assert "File exists" in str(failing(repository, 1, caplog))
    assert (tmp_path / "repository").read_text() == "x"
    (tmp_path / "repository").unlink()
    repository.save(big_state(2), wait=True)
    still_right(repository, [2])
    repository.close()


def test_training_goes_on_while_saving_fails(tmp_path, caplog):
    (tmp_path / "file").write_text("x")
    repository = Repository(tmp_path / "file" / "repository")
    step = jax.jit(lambda w: w * 0.5, donate_argnums=0)
    state = small_state(0, params={"w": jnp.ones(3)})
    for n in range(1, 4):
        repository.save(state)
        state = state.replace(params={"w": step(state.params["w"])}, step=jnp.int32(n))
    np.testing.assert_array_equal(state.params["w"], [0.125] * 3)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3
