"""What a repository does with checkpoints that are damaged: it steps over them, and says so."""

from __future__ import annotations

import shutil

import pytest

from tests.checkpoints.states import bits, entry, large_state, two_checkpoints
from toolshed.checkpoints import Damage
from toolshed.errors import CheckpointDamagedError, CheckpointWarning


def test_latest_steps_over_what_is_damaged_and_says_so(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    (entry(repository, 2).folder / "manifest.json").unlink()
    with pytest.warns(
        CheckpointWarning, match=r"Loaded step 1, as what is newer .* manifest.json is missing"
    ) as log:
        restored = repository.load(like=large_state())
    assert log[0].filename == __file__
    assert bits(restored) == bits(large_state(1))
    assert repository.steps() == [1]
    assert repository.latest.step == 1
    with pytest.raises(CheckpointDamagedError, match=r"000002 is damaged: manifest.json is missing"):
        repository.load(2, like=large_state())
    with pytest.warns(
        CheckpointWarning, match="1 of the checkpoints in .* cannot be read and are left out"
    ) as log:
        assert [one.step for one in repository.find()] == [1]
    assert log[0].filename == __file__


def test_where_none_is_whole_there_is_an_error_and_never_a_fresh_start(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    for step in (1, 2):
        (entry(repository, step).folder / "manifest.json").write_text("{}")
    message = r"None of the 2 checkpoints in .* can be read. The newest: 000000000002-000000002 is damaged"
    for ask in (
        lambda: repository.load(like=large_state()),
        lambda: repository.latest,
        lambda: repository.steps(),
        lambda: repository.find(),
        lambda: repository.manifest("best"),
    ):
        with pytest.raises(CheckpointDamagedError, match=message):
            ask()
    assert "000000000002-000000002 is damaged" in repr(repository)  # a table is shown in any case
    repository.delete(1)
    with pytest.raises(CheckpointDamagedError, match=r"The checkpoint in .* cannot be read"):
        _ = repository.latest
    repository.close()


def test_verify_names_what_is_wrong_and_the_table_shows_it(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    assert "whole" in repr(repository)
    assert repository.verify() == ()
    assert repr(repository).count("verified") == 2
    path = next(path for path in entry(repository, 2).folder.rglob("d/*") if path.stat().st_size > 60_000)
    raw = bytearray(path.read_bytes())
    raw[5_000] ^= 1
    path.write_bytes(raw)
    (repository.path / "steps" / "junk").mkdir()
    file = path.relative_to(entry(repository, 2).folder)
    problem = f"000000000002-000000002 is damaged: {file} is not as it was written."
    assert repository.verify() == (
        Damage("000000000002-000000002", 2, problem),
        Damage("junk", None, "'junk' is no checkpoint."),
    )
    assert repository.verify(2) == repository.verify()[:1]
    assert repository.verify(1) == ()
    assert problem in repr(repository)
    (entry(repository, 2).folder / "manifest.json").unlink()
    assert "manifest.json is missing" in repository.verify(2)[0].problem


def test_one_that_is_deleted_while_it_is_looked_for_is_just_not_there(tmp_path, monkeypatch):
    repository = two_checkpoints(tmp_path / "r")
    newest = entry(repository, 2)
    listed = repository._layout.entries()
    shutil.rmtree(newest.folder)
    monkeypatch.setattr(repository._layout, "entries", lambda: listed)
    assert repository.steps() == [1]
    calls = iter([listed, listed[:1]])
    monkeypatch.setattr(repository._layout, "entries", lambda: next(calls))
    assert int(repository.load(like=large_state()).step) == 1  # and no warning
