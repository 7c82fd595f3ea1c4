"""A feed gives the asked-for number of batches, or says why it cannot."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolshed.data import feed, from_arrays
from toolshed.errors import DataError, ExhaustedWarning


class Counted:
    """Something that can be iterated again, and counts how often it was."""

    def __init__(self, n: int):
        self.n, self.passes = n, 0

    def __iter__(self) -> Iterator[int]:
        self.passes += 1
        return iter(range(self.n))


@given(n=st.integers(1, 6), steps=st.integers(0, 20))
def test_steps_batches_come_over_as_many_passes_as_it_takes(n, steps):
    data = Counted(n)
    assert list(feed(data, steps)) == [step % n for step in range(steps)]
    assert data.passes == -(-steps // n)


@given(n=st.integers(1, 6))
def test_without_a_number_of_steps_it_is_one_pass(n):
    data = Counted(n)
    assert list(feed(data, None)) == list(range(n))
    assert data.passes == 1


def test_no_batch_is_taken_that_was_not_asked_for():
    data = iter(range(10))
    assert list(feed(data, 3)) == [0, 1, 2]
    assert next(data) == 3
    lazy = feed(data, 3)
    assert next(data) == 4  # nothing is taken before the first batch is
    assert next(lazy) == 5


@pytest.mark.parametrize("data", [[], (), iter([]), Counted(0)], ids=["list", "tuple", "iterator", "object"])
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_data_without_a_batch_is_an_error(data, steps):
    with pytest.raises(
        DataError, match=r"^The data gave no batch\. If it is a generator, it is used up: pass"
    ):
        list(feed(data, steps))


def test_no_steps_from_no_data_are_no_error():
    assert list(feed([], 0)) == []


def test_a_generator_that_ends_early_gives_what_it_has_and_warns():
    batches = feed((number for number in range(3)), 5)
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    with pytest.warns(
        ExhaustedWarning, match=r"^The data ended after 3 of 5 steps and cannot be iterated again"
    ):
        assert list(batches) == []


def test_a_generator_that_gives_exactly_enough_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(feed((number for number in range(5)), 5)) == [0, 1, 2, 3, 4]


def test_data_that_is_empty_in_its_second_pass_warns_too():
    passes = iter([[1, 2], []])

    class Dwindling:
        def __iter__(self) -> Iterator[int]:
            return iter(next(passes))

    with pytest.warns(ExhaustedWarning, match="after 2 of 4 steps"):
        assert list(feed(Dwindling(), 4)) == [1, 2]


def test_a_negative_number_of_steps_is_an_error_at_once():
    with pytest.raises(DataError, match=r"^steps is -1; expected at least 0\.$"):
        feed([1], -1)


def test_numpy_s_whole_numbers_are_numbers_of_steps():
    assert len(list(feed([1, 2], np.int64(3)))) == 3


def test_an_error_in_the_data_comes_through():
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    batches = feed(failing(), 5)
    assert next(batches) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_stream_goes_on_from_feed_to_feed():
    stream = from_arrays({"n": np.arange(10)}, 3)  # 4 batches an epoch
    first = list(feed(stream, 6))
    assert (stream.position, stream.epoch) == (6, 1)
    second = list(feed(stream, 5))
    assert (stream.position, stream.epoch) == (11, 2)
    expected = [stream.batch_at(position)["n"].tolist() for position in range(11)]
    assert [batch["n"].tolist() for batch in first + second] == expected
