"""Trackio has what a run has, as it lies in its own database."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toolshed
from tests.run.kept import data
from tests.sinks.small import ODD, TRAINER, check, failure, finish, two_branches
from toolshed.sinks import Trackio

pytestmark = pytest.mark.filterwarnings("ignore")  # those of another project


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Trackio's storage in a directory of the test's; the variable is read when it is imported."""
    assert "trackio" not in sys.modules
    folder: Path = tmp_path_factory.mktemp("trackio")
    before = {name: os.environ.get(name) for name in ("TRACKIO_DIR", "HF_HUB_OFFLINE")}
    os.environ.update({"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"})
    from trackio.sqlite_storage import SQLiteStorage

    yield SQLiteStorage
    assert list(folder.glob("*.db")), "nothing was written there"
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def test_trackio_has_what_the_run_has(storage):
    run = two_branches(Trackio("a-project"))
    assert [event.kind for event in run.events if event.kind == "error"] == []
    assert sorted(storage.get_runs("a-project")) == ["a run/..", "a run/../main-2"]
    found = {}
    for branch, name in (("main", "a run/.."), ("main-2", "a run/../main-2")):
        found[branch] = {}
        for row in storage.get_logs("a-project", name):
            for key, value in row.items():
                found[branch].setdefault(key, {})[row["step"]] = value
        check(found[branch], run, branch)
        config = storage.get_run_config("a-project", name)
        assert config["width"] == 8
        assert config["config_odd"] == {"tags": ["a", None]}
        assert config["toolshed"]["parameters"] == 49
        assert (config["branch"], config["_Group"]) == (branch, "a run/..")
    assert str(found["main"][ODD][10]) in ("nan", "NaN")
    assert found["main"]["event/kind"][10] == "edited"


def test_without_trackio_the_run_goes_on_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    run = toolshed.Run(TRAINER, data(), sinks=[Trackio("p")])
    run.train(2, wait=True)
    finish(run)
    assert "trackio is not installed: pip install 'jax-toolshed[trackio]'." in failure(run)
