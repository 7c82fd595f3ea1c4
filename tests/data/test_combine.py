"""Streams one after another, side by side and in turn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.data import Stream, from_function, from_iterable
from toolshed.data.combine import Interleave
from toolshed.data.sources import IterableSource


def letters(text: str) -> Stream:
    return from_iterable(list(text))


def read(stream: Stream) -> str:
    return "".join(stream)


def test_concat_gives_one_after_another_in_each_epoch():
    stream = letters("ab").concat(letters(""), letters("cde"))
    assert [read(stream), read(stream)] == ["abcde", "abcde"]


def test_zip_gives_tuples_as_far_as_the_shortest_goes():
    stream = letters("abc").zip(from_iterable(range(2)), letters("xyz"))
    assert list(stream) == [("a", 0, "x"), ("b", 1, "y")]


def test_zip_of_shuffles_of_one_seed_keeps_what_belongs_together():
    source = from_iterable(range(20))
    assert all(a == b for a, b in source.shuffle(20, seed=1).zip(source.shuffle(20, seed=1)))
    assert not all(a == b for a, b in source.shuffle(20, seed=1).zip(source.shuffle(20, seed=2)))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["abc", "xyz"], "axbycz"),
        (["abcd", "x", "12"], "ax1b2cd"),
        (["", "xy"], "xy"),
        (["", ""], ""),
        (["abc"], "abc"),
    ],
)
def test_interleave_takes_turns_and_skips_what_has_ended(texts, expected):
    first, *others = map(letters, texts)
    stream = first.interleave(*others)
    assert [read(stream), read(stream)] == [expected, expected]
    assert len(stream) == len(expected)


@settings(deadline=None, max_examples=50)
@given(sizes=st.lists(st.integers(0, 8), min_size=1, max_size=4), seed=st.integers(0, 99), data=st.data())
def test_a_weighted_interleave_gives_every_item_once_and_each_stream_in_its_order(sizes, seed, data):
    weights = data.draw(st.lists(st.floats(1e-3, 1e3), min_size=len(sizes), max_size=len(sizes)))
    parts = [from_iterable([(which, i) for i in range(size)]) for which, size in enumerate(sizes)]
    items = list(parts[0].interleave(*parts[1:], weights=weights, seed=seed))
    for which, size in enumerate(sizes):
        assert [i for other, i in items if other == which] == list(range(size))


def test_weights_say_how_often_each_stream_is_drawn():
    """4,000 draws at 3:1 have mean 3,000 and deviation sqrt(4000 * 3/16) = 27."""
    parts = from_function(lambda i: 0), from_function(lambda i: 1)
    stream = parts[0].interleave(parts[1], weights=[3, 1], seed=4).take(4000)
    drawn = list(stream)
    assert abs(drawn.count(0) - 3000) < 5 * 27
    assert list(stream) != drawn  # another epoch, other draws


def test_without_weights_nothing_is_random():
    parts = letters("aaaa"), letters("bbbb")
    one, other = (parts[0].interleave(parts[1], seed=seed) for seed in (1, 2))
    assert read(one) == read(other) == "abababab"


def test_a_draw_that_rounds_up_to_the_sum_of_the_weights_takes_the_last():
    """1 - 2**-53 times 0.1 + 0.7 rounds to the sum itself, which is past the last share."""
    weights = (0.1, 0.7)
    parts = (IterableSource("a"), IterableSource("b"))
    draw = float(np.nextafter(1, 0))
    assert Interleave(parts, weights, 0)._chosen([0, 1], draw) == 1
