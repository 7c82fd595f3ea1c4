"""`Trainer.fit(checkpoints=…)` saves at the end of each window; what is loaded goes on with the same bits."""

from __future__ import annotations

import jax
import pytest

from tests.run.kept import bits, data, trainer
from toolshed.checkpoints import Repository
from toolshed.errors import ToolshedError

TRAINER = trainer()


def test_the_end_of_each_window_is_saved_and_goes_on_with_the_same_bits(tmp_path):
    begin = TRAINER.init(jax.random.key(0))
    with Repository(tmp_path) as repository:
        TRAINER.fit(begin, data(), steps=8, window=4, eval_data=data(), checkpoints=repository)
        restored = repository.load(like=begin)
        newest = repository.manifest()
        assert repository.steps() == [4, 8]
    assert set(newest.metrics) == {"train/loss", "eval/loss"}
    batches = data()
    batches.restore(newest.data_state)
    assert batches.position == 8
    resumed = TRAINER.fit(restored, batches, steps=5)
    assert bits(resumed) == bits(TRAINER.fit(begin, data(), steps=13))
    again = TRAINER.fit(restored, data(), steps=5)  # from the beginning of the data
    assert bits(again) != bits(resumed)


def test_what_another_watch_changed_is_saved(tmp_path):
    begin = TRAINER.init(jax.random.key(0))
    with Repository(tmp_path) as repository:
        TRAINER.fit(begin, data(), steps=4, window=4, watch=lambda *_: begin, checkpoints=repository)
        assert bits(repository.load(like=begin)) == bits(begin)


def test_something_else_is_refused():
    state = TRAINER.init(jax.random.key(0))
    with pytest.raises(ToolshedError, match=r"checkpoints is 'runs'; expected a toolshed\.checkpoints\.Repo"):
        TRAINER.fit(state, data(), steps=1, window=1, checkpoints="runs")
