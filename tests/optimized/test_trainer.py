"""Training by fit comes to the same bits as steps by hand, however it is cut."""

from __future__ import annotations

import functools

import optax
import pytest

from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, differing, values_of
from tests.training.trainers import arrays, shared, start, stream, trainer_of
from toolshed import Trainer
from toolshed.data import from_arrays


@functools.cache
def sevens() -> Trainer:
    return trainer_of("dropout_mlp", steps_per_call=7)


def test_fit_is_the_loop_written_by_hand():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), 30)
    trainer = shared("dropout_mlp")
    state = start(trainer)
    expected = by_hand.train(case, optax.adam(1e-2), state.root_rng, data)
    assert differing(trainer.fit(state, data).params, expected.params) == []


def test_fit_with_a_report_is_fit_without_bit_for_bit():
    trainer = shared("dropout_mlp")
    silent = trainer.fit(start(trainer), stream(), steps=40)
    reported = trainer.fit(start(trainer), stream(), steps=40, report=lambda step, loss, state: None)
    assert differing(values_of(silent), values_of(reported)) == []


@pytest.mark.parametrize("steps", [7, 13, 24])
def test_seven_steps_in_a_call_with_a_remainder_equal_plain_ones(steps):
    plain = shared("dropout_mlp")
    data = stream(), stream()
    expected = plain.fit(start(plain), data[0], steps=steps)
    state = sevens().fit(start(sevens()), data[1], steps=steps)
    assert differing(values_of(state), values_of(expected)) == []
    assert data[0].position == data[1].position == steps


@pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")
def test_seven_steps_in_a_call_take_a_short_last_batch_too():
    data = from_arrays(arrays(20), 8), from_arrays(arrays(20), 8)  # 8, 8 and 4 examples
    expected = shared("dropout_mlp").fit(start(sevens()), data[0], steps=9)
    state = sevens().fit(start(sevens()), data[1], steps=9)
    assert differing(values_of(state), values_of(expected)) == []
