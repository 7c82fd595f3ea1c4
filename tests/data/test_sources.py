"""Sources give their items from any position on, or say why they cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from toolshed.data import from_function, from_iterable
from toolshed.errors import DataError


class Again:
    """An iterable whose iterations are counted."""

    def __init__(self):
        self.iterations = 0

    def __iter__(self) -> Iterator[int]:
        self.iterations += 1
        return iter([1, 2, 3])


def test_each_epoch_iterates_the_iterable_again():
    source = Again()
    stream = from_iterable(source)
    assert [list(stream), list(stream)] == [[1, 2, 3], [1, 2, 3]]
    assert source.iterations == 2


def test_an_iterator_gives_one_epoch_and_the_second_is_an_error_that_says_what_to_do():
    stream = from_iterable(n for n in range(3))
    assert list(stream) == [0, 1, 2]
    with pytest.raises(
        DataError,
        match=r"^This generator can be iterated only once, and its 3 items are used up\. Pass something that"
        r" can be iterated again, such as a list, or use from_function\.$",
    ):
        list(stream)


def test_an_iterator_goes_on_where_a_loop_was_broken_off():
    stream = from_iterable(iter(range(4)))
    for item in stream:
        if item == 1:
            break
    assert list(stream) == [2, 3]


def test_an_iterator_skips_to_a_later_position_and_cannot_go_back():
    first = from_iterable(iter(range(5)))
    start = first.state()
    iterator = iter(first)
    next(iterator), next(iterator)
    second = from_iterable(iter(range(5)))
    second.restore(first.state())
    assert list(second) == [2, 3, 4]
    first.restore(start)
    with pytest.raises(
        DataError, match=r"it is after item 2 and cannot go back to 0\. Pass something that can be"
    ):
        next(iter(first))


def test_an_iterator_that_is_shorter_than_the_position_is_at_its_end():
    long, short = from_iterable(iter(range(5))), from_iterable(iter(range(2)))
    for _ in zip(range(4), long, strict=False):
        pass
    short.restore(long.state())
    with pytest.raises(DataError, match=r"its 2 items are used up"):  # the next epoch is the second one
        list(short)


def test_a_function_is_called_with_the_number_of_its_item_and_only_when_it_is_asked_for():
    calls: list[int] = []

    def fn(number: int) -> int:
        calls.append(number)
        return number * number

    stream = from_function(fn, 3)
    assert calls == []
    assert [list(stream), list(stream)] == [[0, 1, 4], [0, 1, 4]]
    assert calls == [0, 1, 2, 0, 1, 2]


def test_going_to_a_position_of_a_function_calls_it_for_nothing_before():
    calls: list[int] = []
    stream = from_function(lambda number: calls.append(number) or number)
    state = stream.state()
    stream.restore({**state, "index": 10**9, "at": {"epoch": 0, "index": 10**9}})
    assert next(iter(stream)) == 10**9
    assert calls == [10**9]
