"""Damages checkpoints in every way that a disk, a person or a backup can, and sees what becomes of it.

The long form: ``python -m tests.checkpoints.damage --flips 300``.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.states import bits, entry, large_state, two_checkpoints
from toolshed.checkpoints import Repository
from toolshed.errors import CheckpointDamagedError


def files(folder: Path) -> list[str]:
    """All files of a checkpoint."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def ways(folder: Path, file: str) -> Iterator[str]:
    """Damages one file in each way, one after another, and puts it back each time."""
    path = folder / file
    content = path.read_bytes()
    other = next(f for f in folder.parent.iterdir() if f != folder) / file
    changes = {
        "removed": None,
        "emptied": b"",
        "truncated": content[:-1],
        "longer": content + b"\0",
        "replaced": b"x" * len(content),
        "of another checkpoint": other.read_bytes() if other.exists() else b"y" * len(content),
    }
    for way, changed in changes.items():
        if changed == content:
            continue  # both checkpoints have the same file, or it is empty as it is
        path.unlink()
        if changed is not None:
            path.write_bytes(changed)
        yield way
        path.write_bytes(content)


def flips(folder: Path, count: int, seed: int) -> Iterator[str]:
    """Turns one bit somewhere in a checkpoint, again and again, and turns it back each time."""
    source = random.Random(seed)
    places = [(file, os.path.getsize(folder / file)) for file in files(folder)]
    places = [(file, size) for file, size in places if size]
    for i in range(count):
        # half of them anywhere, which is mostly in the arrays; half in any file alike
        weights = [size for _, size in places] if i % 2 else None
        (file, size), bit = source.choices(places, weights)[0], source.randrange(8)
        place = source.randrange(size)
        flip(folder / file, place, bit)
        yield f"bit {bit} of byte {place} of {file}"
        flip(folder / file, place, bit)


def flip(path: Path, place: int, bit: int) -> None:
    """Turns one bit of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0] ^ (1 << bit)
        file.seek(place)
        file.write(bytes([byte]))


def judge(repository: Repository, what: str) -> None:
    """Whether damage to step 2 is named, seen by `verify`, refused, and stepped over to step 1."""
    (damage,) = Repository(repository.path).verify()
    assert damage.step == 2, what
    assert "000000000002-000000002 is damaged: " in damage.problem, what
    with pytest.raises(CheckpointDamagedError) as caught:
        repository.load(2, like=large_state())
    assert str(caught.value) == damage.problem, what
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        loaded = repository.load(like=large_state())
    assert len(log) == 1, what
    assert damage.problem in str(log[0].message), what
    assert int(loaded.step) == 1, what


def main() -> None:
    """All files in all ways, and many flipped bits."""
    parser = argparse.ArgumentParser(description="Damages checkpoints and sees whether it is noticed.")
    parser.add_argument("--flips", type=int, default=300, help="bits to turn (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of chance (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = two_checkpoints(Path(folder) / "repository")
        step = entry(repository, 2).folder
        count = 0
        for file in files(step):
            for way in ways(step, file):
                judge(repository, f"{file} {way}")
                count += 1
        print(f"{len(files(step))} files in {count} ways: all named, refused and stepped over")
        for what in flips(step, options.flips, options.seed):
            judge(repository, what)
        print(f"{options.flips} flipped bits: all named, refused and stepped over")
        assert repository.verify() == ()
        assert bits(repository.load(2, like=large_state())) == bits(large_state(2))
        shutil.rmtree(step)
        assert repository.steps() == [1]


if __name__ == "__main__":
    main()
