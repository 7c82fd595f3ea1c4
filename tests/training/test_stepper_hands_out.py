"""What a call of several steps hands out is of its last one."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, new_state
from toolshed.training.stepper import Stepper

FIELDS = ("grads", "updates")


@pytest.mark.parametrize("build", [zoo.dropout_mlp, zoo.running_statistics])
def test_gradients_and_updates_are_those_of_the_last_step(build: Callable[[], zoo.Case]):
    case = build()
    state = first = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=FIELDS)
    step = toolshed.build_train_step(case.loss_fn, fields=FIELDS, donate=True)
    stepper, tape, data = Stepper(first), step.tape(), batches(case, 6)
    assert stepper.most > 1
    seen = []
    for start, end in ((0, 1), (1, 5), (5, 6)):
        context = stepper(step, data[start:end], tape)
        for batch in data[start:end]:
            state, right = by_hand(state, batch)
        for name in FIELDS:
            jax.tree.map(
                lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7),
                getattr(context, name),
                getattr(right, name),
            )
        seen.append(np.asarray(jax.tree.leaves(context.grads)[0]))
    assert not np.allclose(seen[0], seen[1], rtol=1e-3)  # the comparison can fail
