"""Batches are read ahead in groups of one kind, and none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from toolshed.training.lookahead import Lookahead
from toolshed.training.stepper import at_once, kind_of


def batch(number: int, size: int = 2) -> dict[str, Any]:
    return {"x": np.full(size, number, np.float32)}


def lookahead(items: Iterator[Any]) -> Lookahead:
    places = iter(range(1000))
    return Lookahead(lambda: (next(items), next(places)))


def numbers(batches: list[Any]) -> list[int]:
    return [int(one["x"][0]) for one in batches]


def test_a_group_has_as_many_as_are_wanted_and_the_last_what_is_left():
    ahead = lookahead(iter([batch(n) for n in range(7)]))
    assert [numbers(ahead.take(most)) for most in (3, 1, 3)] == [[0, 1, 2], [3], [4, 5, 6]]
    with pytest.raises(StopIteration):
        ahead.take(3)


def test_a_group_ends_before_a_batch_of_another_shape_and_that_one_comes_next():
    ahead = lookahead(iter([batch(0), batch(1), batch(2, size=1), batch(3)]))
    assert numbers(ahead.take(8)) == [0, 1]
    assert ahead.place == 2
    assert numbers(ahead.take(8)) == [2]
    assert numbers(ahead.take(8)) == [3]


def test_an_error_comes_after_the_batches_that_were_read_before_it():
    def items() -> Iterator[Any]:
        yield batch(0)
        yield batch(1)
        raise OSError("the file is gone")

    ahead = lookahead(items())
    assert numbers(ahead.take(8)) == [0, 1]
    with pytest.raises(OSError, match="the file is gone"):
        ahead.take(8)


def test_what_is_given_back_comes_again_in_its_order_and_place():
    ahead = lookahead(iter([batch(n, size=1 + n // 3) for n in range(6)]))
    assert numbers(ahead.take(8)) == [0, 1, 2]
    ahead.give_back()
    assert ahead.place == 0
    assert numbers(ahead.take(1)) == [0]
    assert ahead.place == 1
    assert numbers(ahead.take(8)) == [1, 2]
    assert numbers(ahead.take(8)) == [3, 4, 5]
    ahead.give_back()
    ahead.clear()
    assert ahead.place is None
    with pytest.raises(StopIteration):
        ahead.take(1)


@pytest.mark.parametrize(
    "alone",
    [{"x": 1.0}, {"x": "text"}, [1, 2], batch(0, 2**15)],
    ids=["number", "text", "list", "large"],
)
def test_numbers_text_and_large_arrays_are_stepped_on_alone(alone: Any):
    assert kind_of(alone) is None
    ahead = lookahead(iter([alone, alone]))
    assert len(ahead.take(8)) == 1


def test_kinds_tell_names_shapes_and_dtypes_apart():
    x = np.zeros((2, 3), np.float32)
    kinds = [{"x": x}, {"y": x}, {"x": x.T}, {"x": x.astype(np.int32)}, {"x": x, "y": x}]
    assert len({kind_of(one) for one in kinds}) == len(kinds)
    assert kind_of({"x": x}) == kind_of({"x": jnp.ones((2, 3))})


def test_no_more_steps_are_made_in_a_call_than_take_a_tenth_of_a_second():
    assert at_once(16, 100, 1.0) == 10
    assert at_once(16, 5, 1.0) == 1
    assert at_once(16, 10_000, 0.5) == 16
    assert at_once(1, 10_000, 0.5) == 1
