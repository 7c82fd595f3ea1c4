"""Which checkpoint is meant: by step, tag, metric and metadata, and what is said where there is none."""

from __future__ import annotations

import math
import re

import jax
import pytest

from tests.checkpoints.states import save, small_state
from toolshed.checkpoints import Best, Repository
from toolshed.errors import CheckpointError, CheckpointNotFoundError


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Steps 30, 10 (a rewind), 20, 20 again, 40."""
    repository = Repository(tmp_path_factory.mktemp("several"), keep_best=Best("loss", "min", 9))
    save(repository, 30, metrics={"loss": 1.0}, tags=["old"], metadata={"lr": 0.1, "deep": {"a": [1]}})
    save(repository, 10, metrics={"loss": 0.5, "accuracy": 0.75}, tags=["mine"])
    save(repository, 20, metrics={"loss": 2.0}, tags=["mine", "first"], metadata={"lr": 0.1, "x": 1})
    save(repository, 20, metrics={"loss": 0.5})
    save(repository, 40, metrics={"loss": math.nan})
    repository.close()
    return repository


def test_steps_come_in_rising_order_each_once(several):
    assert several.steps() == [10, 20, 30, 40]


def test_latest_is_what_was_written_last(several, tmp_path):
    assert several.latest.step == 40
    assert Repository(tmp_path).latest is None
    with Repository(tmp_path) as repository:
        save(repository, 500)
        save(repository, 200)  # after a rewind
        assert repository.latest.step == 200
        assert int(repository.load(like=small_state()).step) == 200


def test_a_step_saved_again_is_the_newer_one_and_a_tagged_one_is_kept(several):
    assert several.manifest(20).metrics["loss"] == 0.5
    assert several.manifest("first").metrics["loss"] == 2.0
    assert several.manifest("first").step == 20
    assert int(several.load(several.manifest("first"), like=small_state()).step) == 20


def test_a_tag_means_the_newest_that_has_it(several):
    assert several.manifest("mine").metrics["loss"] == 2.0
    assert several.manifest("old").step == 30


def test_best_is_by_metric_and_of_equals_the_newer(several):
    assert several.best("loss").step == 20
    assert several.best("loss", "max").metrics["loss"] == 2.0
    assert several.best("accuracy", "max").step == 10
    assert several.manifest("best").step == 20  # keep_best says by which


def test_find_is_by_all_tags_and_entries_of_metadata(several):
    assert [one.step for one in several.find()] == [30, 10, 20, 20, 40]
    assert [one.step for one in several.find(tags="mine")] == [10, 20]
    assert [one.step for one in several.find(tags=["mine", "first"])] == [20]
    assert [one.step for one in several.find(metadata={"lr": 0.1})] == [30, 20]
    assert [one.step for one in several.find(tags="old", metadata={"deep": {"a": [1]}})] == [30]
    assert several.find(metadata={"lr": None}) == []
    assert several.find(tags="nobody's") == []


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (25, "There is no step 25 in {path}. There are 4; the nearest are 10, 20, 30, 40."),
        ("mne", "There is no checkpoint with the tag 'mne' in {path}. There is 'mine'."),
        ("x" * 500, "There is no checkpoint with the tag '" + "x" * 100 + "' in {path}."),
        ("../../evil", "There is no checkpoint with the tag '../../evil' in {path}."),
    ],
)
def test_what_is_not_there_is_told_with_what_is(several, which, message):
    with pytest.raises(CheckpointNotFoundError, match=re.escape(message.format(path=several.path))):
        several.load(which, like=small_state())
    with pytest.raises(LookupError):
        several.manifest(which)


def test_an_empty_repository_says_so(tmp_path):
    repository = Repository(tmp_path / "nothing")
    for which in ("latest", 3):
        with pytest.raises(CheckpointNotFoundError, match=r"no (checkpoint in|step 3 in .* at all)"):
            repository.load(which, like=small_state())
    with pytest.raises(CheckpointNotFoundError, match=r"Which is best\? Ask best"):
        repository.manifest("best")
    assert repository.steps() == []
    assert repository.find() == []
    assert repository.verify() == ()
    assert repr(repository) == f"Repository {tmp_path / 'nothing'} · 0 checkpoints"
    assert not (tmp_path / "nothing").exists()


def test_a_metric_that_none_has_is_told(several):
    message = (
        "no checkpoint with a finite 'acuracy' in .*The metrics there are accuracy, loss. Give them to save"
    )
    with pytest.raises(CheckpointNotFoundError, match=message):
        several.best("acuracy")
    with pytest.raises(CheckpointError, match="mode is 'lowest'; expected 'min' or 'max'"):
        several.best("loss", "lowest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": {"a": 1}}, "Expected `like` to be a TrainState, got dict. Make a fresh one with the model"),
        ({"shardings": "everywhere"}, "Expected shardings as one jax.sharding.Sharding, or as a TrainState"),
        ({"rename": {"nobody": "x"}}, "rename has 'nobody', which is in no saved path."),
        ({"step": 1.5}, "A step is a whole number"),
        ({"step": None}, "A step is a whole number"),
    ],
)
def test_a_wrong_argument_is_told(several, options, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        several.load(**({"like": small_state()} | options))


def test_a_state_of_shapes_alone_is_told(several):
    with pytest.raises(CheckpointError, match="`like` has no array at step, only a shape; expected"):
        several.load(like=jax.eval_shape(small_state))
