"""A tap costs nothing: the step with it is the step without it."""

from __future__ import annotations

from tests import zoo
from tests.test_taps import tapped_loss
from tests.training.by_hand import differing, new_state
from toolshed import build_train_step


def test_a_tap_changes_no_bit_of_the_step():
    case = zoo.mlp()
    steps = [build_train_step(loss_fn) for loss_fn in (case.loss_fn, tapped_loss)]
    states = [new_state(case), new_state(case)]
    for _ in range(3):
        states = [step(state, case.batch)[0] for step, state in zip(steps, states, strict=True)]
    assert differing(states[0].params, states[1].params) == []
