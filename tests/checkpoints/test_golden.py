"""Checkpoints of older versions load for ever."""

from __future__ import annotations

import datetime
import math
import shutil
import warnings

import pytest

from tests.checkpoints import golden
from tests.checkpoints.states import bits
from toolshed.checkpoints import Repository
from toolshed.errors import EnvironmentWarning, OptimizerWarning


@pytest.mark.parametrize("n", [1, 2])
def test_schema_1_loads_bit_for_bit(n):
    repository = Repository(golden.FOLDER / "1")
    with warnings.catch_warnings():
        # Other versions of jax and optax than it was written with may be here.
        warnings.simplefilter("ignore", EnvironmentWarning)
        warnings.simplefilter("ignore", OptimizerWarning)
        loaded = repository.load(100 * n, like=golden.state(9))
    assert bits(loaded) == bits(golden.state(n))
    assert loaded.model_without_params["rate"] == 0.25


def test_schema_1_says_what_it_said():
    repository = Repository(golden.FOLDER / "1")
    assert repository.steps() == [100, 200]
    first, second = repository.find()
    assert first.tags == ("first", "größe", "later")
    assert first.metadata == {"lr": 0.5, "deep": [None, {"a": True}]}
    assert second.metrics["eval/loss"] == 0.25
    assert math.isnan(second.metrics["bad"])
    assert second.data_state == {"position": 3}
    assert first.time.tzinfo is datetime.UTC
    assert first.time < second.time
    assert first.environment["versions"]["jax"] == "0.10.2"
    assert repository.verify() == ()
    assert repository.latest.step == 200


def test_reading_changes_nothing_and_writing_goes_on(tmp_path):
    assert [path.name for path in (golden.FOLDER / "1").iterdir()] == ["steps"]
    shutil.copytree(golden.FOLDER / "1", tmp_path / "1")
    with Repository(tmp_path / "1", keep_last=2) as repository:
        repository.save(golden.state(3), wait=True)
        assert repository.steps() == [100, 200, 300]  # the first has a tag
        assert repository.manifest(300).generation == 3
