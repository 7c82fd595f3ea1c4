"""A repository that a stranger made: it is refused, and nothing is run, followed or allocated for it.

All SHA-256 are right here; whoever writes the files can compute them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorstore

from tests.checkpoints.states import entry, forge, forge_structure, large_state, two_checkpoints
from toolshed.checkpoints import Repository
from toolshed.errors import CheckpointDamagedError, CheckpointError, CheckpointMismatchError


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    repository = two_checkpoints(tmp_path / "r")
    repository.delete(1)
    yield repository
    repository.close()


@pytest.fixture
def evil(repository: Repository) -> Path:
    """The directory of its one checkpoint, to be changed."""
    return entry(repository, 2).folder


@pytest.fixture(autouse=True)
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory that must stay as it is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("as it was")
    yield outside
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "as it was"


def refused(repository: Repository, message: str, error: type[Exception] = CheckpointDamagedError) -> None:
    """Whether all ways to the checkpoint lead to this error, and loading it takes no memory."""
    like = large_state()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for step in ("latest", 2):
        with pytest.raises(error, match=message):
            repository.load(step, like=like)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100_000  # kB
    repr(repository)
    repository._repr_html_()


# --- files ------------------------------------------------------------------------------------------


def test_the_forger_of_these_tests_makes_checkpoints_that_load(repository, evil):
    forge(evil, lambda body: body.update(metadata={"mine": True}))
    forge_structure(evil, lambda leaves: leaves[0].update(sharding="mine"))
    assert int(repository.load(like=large_state()).step) == 2
    assert repository.latest.metadata == {"mine": True}


def test_a_checkpoint_that_is_a_link_is_refused(repository, evil, outside, tmp_path):
    shutil.move(evil, tmp_path / "elsewhere")
    evil.symlink_to(tmp_path / "elsewhere")
    refused(repository, "it is no directory")
    repository.delete(2)
    assert (tmp_path / "elsewhere" / "manifest.json").exists()


def test_a_file_that_is_a_link_is_refused(repository, evil, outside):
    (evil / "arrays" / "link").symlink_to(outside / "precious")
    forge(evil, lambda body: None)
    refused(repository, "arrays/link is a symbolic link")


def test_a_file_that_is_a_link_to_what_it_should_be_is_refused(repository, evil, tmp_path):
    shutil.move(evil / "structure.json", tmp_path / "structure.json")
    (evil / "structure.json").symlink_to(tmp_path / "structure.json")
    refused(repository, "structure.json is a symbolic link")


def test_a_manifest_that_is_a_link_is_refused(repository, evil, tmp_path):
    shutil.move(evil / "manifest.json", tmp_path / "manifest.json")
    (evil / "manifest.json").symlink_to(tmp_path / "manifest.json")
    refused(repository, "manifest.json is no ordinary file")


def test_a_directory_that_is_a_link_is_refused(repository, evil, tmp_path):
    shutil.move(evil / "arrays", tmp_path / "arrays")
    (evil / "arrays").symlink_to(tmp_path / "arrays")
    refused(repository, "arrays is a symbolic link")


def test_a_pipe_is_refused_and_not_waited_for(repository, evil):
    (evil / "structure.json").unlink()
    os.mkfifo(evil / "structure.json")
    refused(repository, "structure.json is no ordinary file")


def test_a_file_that_the_manifest_does_not_name_is_refused(repository, evil):
    (evil / "arrays" / "sitecustomize.py").write_text("raise SystemExit")
    refused(repository, r"'arrays/sitecustomize.py' does not belong to it")


@pytest.mark.parametrize(
    "name", ["../../../outside/precious", "/etc/passwd", "arrays/../../x", "arrays//x", "."]
)
def test_a_file_outside_is_refused(repository, evil, name):
    forge(evil, lambda body: body["files"].update({name: [9, "0" * 64]}))
    refused(repository, "is no file of a checkpoint")


def test_directories_without_end_are_refused(repository, evil):
    deep = evil / "arrays"
    for _ in range(300):
        deep = deep / "d"
        try:
            deep.mkdir()
        except OSError:
            break
    (deep.parent / "x").write_text("x")
    refused(repository, "does not belong to it")


# --- sizes ------------------------------------------------------------------------------------------


def params_w(leaves: list[dict[str, Any]]) -> dict[str, Any]:
    return next(leaf for leaf in leaves if leaf["path"] == "params/w")


def test_a_huge_shape_is_refused(repository, evil):
    forge_structure(evil, lambda leaves: params_w(leaves).update(shape=[10**13], bytes=4 * 10**13))
    refused(repository, r"params/w: saved float32\[10000000000000\], expected", CheckpointMismatchError)
    with pytest.raises(CheckpointMismatchError, match="No parameter fits, so there is nothing to restore"):
        repository.load(like=large_state().replace(model_without_params=()), partial=True)


def test_huge_arrays_beside_those_that_fit_are_refused(repository, evil):
    def add(leaves: list[dict[str, Any]]) -> None:
        more = {"path": "params/more", "shape": [10**13], "bytes": 4 * 10**13, "array": "00009"}
        leaves.append(params_w(leaves) | more)

    forge_structure(evil, add)
    with pytest.raises(CheckpointDamagedError, match="arrays are said to be larger than its files"):
        repository.load(like=large_state(), partial=True)


def test_many_small_arrays_that_are_not_there_are_refused(repository, evil):
    def add(leaves: list[dict[str, Any]]) -> None:
        more = {"shape": [16_000], "bytes": 64_000, "array": "packed", "offset": 0}
        leaves.extend(params_w(leaves) | more | {"path": f"params/{i}"} for i in range(1_000))

    forge_structure(evil, add)
    with pytest.raises(CheckpointDamagedError, match="arrays are said to be larger than its files"):
        repository.load(like=large_state(), partial=True)


def stored(folder: Path, change: Callable[[dict[str, Any]], Any], array: str = "00000") -> None:
    """Changes what the stored array says of itself, where orbax keeps it."""
    base = {"driver": "ocdbt", "base": f"file://{folder}/arrays/arrays/"}
    store = tensorstore.KvStore.open(base).result()
    key = f"{array}/zarr.json".encode()
    metadata = json.loads(store.read(key).result().value)
    change(metadata)
    store.write(key, json.dumps(metadata).encode()).result()
    forge(folder, lambda body: None)


@pytest.mark.parametrize("array", ["00000", "packed"])
def test_a_stored_array_of_a_huge_shape_is_refused(repository, evil, array):
    stored(evil, lambda metadata: metadata.update(shape=[10**13]), array)
    refused(repository, f"the stored array {array} is .*\\[10000000000000\\]; expected")


def test_a_stored_array_in_huge_pieces_is_refused(repository, evil):
    def grow(metadata: dict[str, Any]) -> None:
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**12]
        metadata["codecs"][0]["configuration"]["chunk_shape"] = [10**12]

    stored(evil, grow)
    refused(repository, r"the stored array 00000 is float32\[20000\], in pieces of \[1000000000000\]")


def test_a_stored_array_of_another_type_is_refused(repository, evil):
    stored(evil, lambda metadata: metadata.update(data_type="int32", fill_value=0))
    refused(repository, r"the stored array 00000 is int32\[20000\]; expected float32\[20000\]")


def test_a_stored_array_that_is_smaller_is_refused(repository, evil):
    stored(evil, lambda metadata: metadata.update(shape=[2]))
    refused(repository, r"the stored array 00000 is float32\[2\]; expected float32\[20000\]")


def test_other_values_in_a_stored_array_are_refused(repository, evil):
    base = {"driver": "ocdbt", "base": f"file://{evil}/arrays/arrays/"}
    store = tensorstore.KvStore.open(base).result()
    raw = bytearray(store.read(b"00000/c/0").result().value)
    raw[100] ^= 1
    store.write(b"00000/c/0", bytes(raw)).result()
    forge(evil, lambda body: None)
    assert repository.verify() == ()  # its files are those that its manifest names
    refused(repository, "the values of params/w are not those that were saved")


# --- texts ------------------------------------------------------------------------------------------


def test_texts_of_a_stranger_are_shown_as_text(repository, evil):
    text = "<script>alert(1)</script>"
    forge(evil, lambda body: body.update(tags=[text], metrics={text: 1.0}, metadata={text: "\x1b[2J"}))
    html = repository._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in repr(repository)
    assert "\x1b" not in repr(repository.latest)


def test_steps_that_are_a_link_are_not_read_and_not_written_to(repository, outside):
    shutil.rmtree(repository.path / "steps")
    (repository.path / "steps").symlink_to(outside)
    for ask in (lambda: repository.latest, lambda: repository.save(large_state(), wait=True)):
        with pytest.raises(CheckpointError, match="steps is a symbolic link; expected a directory"):
            ask()


def test_a_lock_that_is_a_link_is_not_written_to(repository, outside):
    repository.close()
    (repository.path / "lock").unlink()
    (repository.path / "lock").symlink_to(outside / "precious")
    with pytest.raises(CheckpointError, match="was not saved in"):
        repository.save(large_state(), wait=True)
