"""Nothing that happens to a checkpoint's files goes unnoticed.

The short form; ``python -m tests.checkpoints.damage --flips 300`` is the long one.
"""

from __future__ import annotations

import shutil

import pytest

from tests.checkpoints.damage import files, flips, judge, ways
from tests.checkpoints.states import bits, entry, large_state, two_checkpoints


def test_each_file_that_is_removed_truncated_or_replaced_is_named_and_stepped_over(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    folder = entry(repository, 2).folder
    seen = [(file, way) for file in files(folder) for way in ways(folder, file) if not judge(repository, way)]
    assert {file for file, _ in seen} == set(files(folder))
    assert len(seen) > 4 * len(files(folder))
    assert repository.verify() == ()  # all was put back


def test_each_flipped_bit_is_named_and_stepped_over(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    for what in flips(entry(repository, 2).folder, 40, seed=1):
        judge(repository, what)
    assert repository.verify() == ()
    assert bits(repository.load(2, like=large_state())) == bits(large_state(2))


def test_the_judge_tells_when_nothing_is_damaged(tmp_path):
    with pytest.raises(ValueError, match="not enough values"):
        judge(two_checkpoints(tmp_path / "r"), "nothing")


def test_a_whole_checkpoint_in_the_place_of_another_is_named(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    one, two = entry(repository, 1).folder, entry(repository, 2).folder
    shutil.rmtree(two)
    shutil.copytree(one, two)
    judge(repository, "replaced")


def test_a_checkpoint_in_a_directory_of_another_name_is_none(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    two = entry(repository, 2).folder
    two.rename(two.with_name("000000000003-000000003"))
    (damage,) = repository.verify()
    assert "its manifest is of step 2, generation 2" in damage.problem
