"""A loader's state goes through JSON and comes back as it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolshed.data.plain import from_plain, to_plain
from toolshed.errors import DataError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
states = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(states)
def test_every_state_comes_back_from_json_with_its_types(state: Any):
    back = from_plain(json.loads(json.dumps(to_plain(state))))
    assert back == state
    assert repr(back) == repr(state)  # True is not 1, a tuple no list


def test_arrays_come_back_with_dtype_and_shape_and_can_be_written_to():
    state = {"key": np.arange(6, dtype=np.uint8).reshape(2, 3), "n": np.int64(3)}
    back = from_plain(json.loads(json.dumps(to_plain(state))))
    assert (back["key"].dtype, back["key"].tolist(), back["n"]) == (np.uint8, [[0, 1, 2], [3, 4, 5]], 3)
    back["key"][0] = 9


def test_the_state_of_numpy_s_generators_comes_back():
    state = np.random.default_rng(3).bit_generator.state
    assert from_plain(json.loads(json.dumps(to_plain(state)))) == state


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None])])
def test_what_is_no_data_is_refused(value):
    with pytest.raises(
        DataError, match=r"^The loader's state holds a \w+, which cannot be saved as plain data\.$"
    ):
        to_plain({"part": [value]})
