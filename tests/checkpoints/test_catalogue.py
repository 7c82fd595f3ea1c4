from __future__ import annotations

import os

import pytest

from tests.checkpoints.states import entry, forge, large_state, two_checkpoints
from toolshed.checkpoints import catalogue as catalogues
from toolshed.checkpoints.catalogue import Catalogue
from toolshed.checkpoints.layout import Layout
from toolshed.errors import CheckpointSchemaError


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of the manifests that are parsed, as they are."""
    steps, read = [], catalogues.manifest.read

    def counted(where):
        steps.append(where.step)
        return read(where)

    monkeypatch.setattr(catalogues.manifest, "read", counted)
    return steps


def test_a_manifest_is_parsed_once_and_again_when_it_changes(tmp_path, parsed):
    two_checkpoints(tmp_path / "r")
    parsed.clear()
    catalogue = Catalogue(Layout(tmp_path / "r"), None)
    assert [one.step for one in catalogue.list().whole] == [1, 2]
    assert [one.step for one in catalogue.list().whole] == [1, 2]
    assert parsed == [1, 2]
    forge(tmp_path / "r" / "steps" / "000000000001-000000001", lambda body: body.update(tags=["new"]))
    assert catalogue.list().whole[0].tags == ("new",)
    assert parsed == [1, 2, 1]


def test_files_are_looked_at_each_time(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    catalogue = Catalogue(Layout(tmp_path / "r"), None)
    assert len(catalogue.list().whole) == 2
    os.truncate(entry(repository, 1).folder / "structure.json", 5)
    listing = catalogue.list()
    assert [one.step for one in listing.whole] == [2]
    ((where, error),) = listing.broken
    assert where.step == 1
    assert "structure.json has 5 bytes instead of" in str(error)


def test_a_newer_schema_is_refused_and_not_stepped_over(tmp_path):
    repository = two_checkpoints(tmp_path / "r")
    forge(entry(repository, 2).folder, lambda body: body.update(schema="toolshed.checkpoint/2"))
    with pytest.raises(CheckpointSchemaError, match="A newer toolshed wrote it: update"):
        repository.load(like=large_state())
    assert int(repository.load(1, like=large_state()).step) == 1
    assert repository.steps() == [1]
    assert "A newer toolshed wrote it" in repr(repository)
