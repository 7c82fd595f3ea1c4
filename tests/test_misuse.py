"""Every wrong way to call toolshed that we know of gives one clear error and breaks nothing.

The table is the test: a name, the wrong call, the type of the error, and what its text must say. After
each of them a state from before still trains to the same bits as ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import jaxtyping
import pytest

from tests.misuse import data, runs, states, steps
from tests.misuse.calls import BATCH, expected, good_step, state
from tests.training.by_hand import differing, values_of

TABLE = [*steps.TABLE, *states.TABLE, *data.TABLE, *runs.TABLE]


@pytest.fixture(autouse=True)
def without_type_checks() -> Iterator[None]:
    """As people run it: with no type checker between them and the errors that toolshed raises."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_the_table_is_as_long_as_was_promised_and_names_each_once():
    assert len(TABLE) >= 30
    assert len({misuse.name for misuse in TABLE}) == len(TABLE)


@pytest.mark.parametrize("misuse", TABLE, ids=lambda misuse: misuse.name)
def test_a_wrong_call_gives_one_clear_error_and_breaks_nothing(misuse):
    before = values_of(state())
    after = expected()
    with pytest.raises(misuse.error) as caught:
        misuse.call()
    assert type(caught.value) is misuse.error  # not a subclass that only happens to be one
    text = str(caught.value)  # without the notes that jax adds
    assert re.search(misuse.message, text), text
    assert differing(values_of(state()), before) == []
    good, _ = good_step()(state(), BATCH)
    assert differing(values_of(good), after) == []


def test_a_good_step_is_no_misuse():
    good, _ = good_step()(state(), BATCH)
    assert int(good.step) == 3
    assert good_step().traces >= 1
    assert differing(good.params, state().params) == sorted(state().params)
