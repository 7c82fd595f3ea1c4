"""What each transform makes of the items before it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chains import arrays, double, example, examples, jitter, numbers, plain
from toolshed.data import from_arrays, from_function, from_iterable
from toolshed.errors import DataError


class Counted:
    """Numbers that can be iterated again, and how many were taken."""

    def __init__(self, n: int):
        self.n, self.taken = n, 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.n):
            self.taken += 1
            yield number


# --- repeat and take --------------------------------------------------------------------------------


def test_repeat_makes_one_epoch_of_several_that_all_differ():
    stream = examples(6).shuffle(6, seed=2).repeat(3)
    first, second = numbers(stream), numbers(stream)
    rounds = [tuple(epoch[i : i + 6]) for epoch in (first, second) for i in (0, 6, 12)]
    assert [sorted(one) for one in rounds] == [list(range(6))] * 6
    assert len(set(rounds)) == 6
    source = examples(6).shuffle(6, seed=2)
    assert rounds == [tuple(numbers(source)) for _ in range(6)]


def test_an_endless_repeat_does_not_end():
    stream = from_iterable(range(3)).repeat()
    assert [n for n, _ in zip(stream, range(100), strict=False)] == [i % 3 for i in range(100)]


def test_repeating_nothing_is_an_error_instead_of_a_loop_without_end():
    with pytest.raises(
        DataError, match=r"^There is nothing to repeat: from_iterable\(list of 0\) gave no item\.$"
    ):
        next(iter(from_iterable([]).repeat()))


def test_take_reads_no_more_than_it_gives():
    source = Counted(10)
    stream = from_iterable(source).take(4)
    assert (list(stream), source.taken) == ([0, 1, 2, 3], 4)
    assert (list(stream), source.taken) == ([0, 1, 2, 3], 8)
    assert list(from_iterable(source).take(0)) == []
    assert source.taken == 8


# --- shuffle ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(n=st.integers(1, 40), size=st.integers(1, 50), seed=st.integers(0, 2**40))
def test_an_epoch_of_a_shuffle_is_a_permutation_within_blocks(n, size, seed):
    stream = from_iterable(range(n)).shuffle(size, seed)
    for _ in range(2):
        epoch = list(stream)
        blocks = [sorted(epoch[i : i + size]) for i in range(0, n, size)]
        assert blocks == [list(range(n))[i : i + size] for i in range(0, n, size)]


def test_shuffles_differ_by_epoch_and_block_and_seed_and_agree_otherwise():
    def orders(seed: int) -> list[tuple[int, ...]]:
        stream = from_iterable(range(60)).shuffle(20, seed)
        epochs = [list(stream) for _ in range(3)]
        return [tuple(n % 20 for n in epoch[i : i + 20]) for epoch in epochs for i in (0, 20, 40)]

    assert orders(5) == orders(5)
    assert len({*orders(5), *orders(6), tuple(range(20))}) == 19


def test_a_shuffle_does_not_repeat_the_order_of_arrays_of_the_same_seed():
    """Were both drawn alike, a shuffle of everything would apply one permutation twice."""
    array_order = numbers(from_arrays(arrays(30), None, seed=3))
    shuffle_order = numbers(from_arrays(arrays(30), None, shuffle=False).shuffle(30, seed=3))
    assert array_order != shuffle_order


def test_every_item_comes_to_every_place_about_equally_often():
    """300 epochs of 4 items: each (item, place) has mean 75 and deviation sqrt(300 * 3/16) = 7.5."""
    stream = from_iterable(range(4)).shuffle(4, seed=0)
    counts = np.zeros((4, 4))
    for _ in range(300):
        for place, item in enumerate(stream):
            counts[item, place] += 1
    assert np.abs(counts - 75).max() < 5 * 7.5


def test_pinned_orders_stay_as_they_are():
    """A stream saved by one version goes on in the next: these orders may not change."""
    stream = from_iterable(range(8)).shuffle(8, seed=1)
    assert [list(stream), list(stream)] == [[6, 1, 4, 0, 3, 2, 5, 7], [1, 5, 3, 4, 2, 7, 6, 0]]


# --- batch, window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["keep", "drop", "mask"])
@pytest.mark.parametrize("n", [1, 3, 6, 7, 8])
def test_batching_examples_is_what_batches_of_arrays_are(n, last):
    if last == "drop" and n > 7:
        return
    ours = from_arrays(arrays(7), None, seed=5).batch(n, last=last)
    theirs = from_arrays(arrays(7), n, seed=5, last=last)
    for _ in range(2):
        assert list(map(plain, ours)) == list(map(plain, theirs))
    assert len(ours) == len(theirs)


def test_a_batch_stacks_nested_items_and_bare_numbers():
    batch = next(iter(examples(3).batch(2)))
    assert {**batch, "pair": {**batch["pair"]}}.keys() == {"n", "pair"}
    assert batch["n"].dtype == np.int32
    assert batch["pair"]["both"].tolist() == [[0, 0], [1, -1]]
    assert [b.tolist() for b in from_iterable(range(3)).batch(2)] == [[0, 1], [2]]


def test_nothing_is_read_ahead_of_a_batch():
    source = Counted(10)
    next(iter(from_iterable(source).batch(3)))
    assert source.taken == 3


@given(n=st.integers(0, 12), size=st.integers(1, 5), stride=st.integers(1, 6))
def test_windows_are_the_slices_that_fit(n, size, stride):
    stream = from_iterable(range(n)).window(size, stride)
    expected = [list(range(i, i + size)) for i in range(0, n - size + 1, stride)]
    assert [window.tolist() for window in stream] == expected
    assert len(stream) == len(expected)


def test_windows_of_items_of_different_shape_are_an_error():
    items = [{"x": np.zeros(2)}, {"x": np.zeros(3)}]
    with pytest.raises(
        DataError, match=r"^Item 1 of a window is unlike item 0: x is float64\[3\], not float64\[2\]"
    ):
        list(from_iterable(items).window(2))


# --- map --------------------------------------------------------------------------------------------


def test_a_seeded_map_draws_anew_for_each_item_and_epoch_and_the_same_for_the_same():
    stream = examples(3).map(jitter, seed=1)
    draws = [tuple(item["noise"]) for _ in range(3) for item in stream]
    assert len(set(draws)) == 9
    again, other = examples(3).map(jitter, seed=1), examples(3).map(jitter, seed=2)
    assert [tuple(item["noise"]) for _ in range(3) for item in again] == draws
    assert not {tuple(item["noise"]) for item in other} & set(draws)


def test_an_error_in_a_map_comes_at_its_item_and_the_next_iteration_tries_it_again():
    broken = True

    def fragile(n: int) -> int:
        if n == 2 and broken:
            raise OSError("the disk is gone")
        return n

    stream = from_iterable(range(4)).map(fragile)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(n for n in iter_into(stream, seen))
    assert seen == [0, 1]
    assert stream.position == 2
    broken = False
    assert list(stream) == [2, 3]


def iter_into(stream: Any, seen: list[Any]) -> Iterator[Any]:
    for item in stream:
        seen.append(item)
    yield from ()


# --- pad_last ---------------------------------------------------------------------------------------


def test_pad_last_fills_the_short_batch_and_masks_every_one():
    batches = list(examples(5).batch(3).pad_last(3))
    assert [b["n"].tolist() for b in batches] == [[0, 1, 2], [3, 4, 3]]
    assert [b["mask"].tolist() for b in batches] == [[True] * 3, [True, True, False]]


def test_pad_last_extends_the_mask_of_a_batch():
    batches = list(examples(5).batch(3, last="mask").pad_last(4))
    assert [b["mask"].tolist() for b in batches] == [[True] * 3 + [False], [True, True, False, False]]
    assert [b["n"].tolist() for b in batches] == [[0, 1, 2, 0], [3, 4, 3, 3]]


# --- lengths ----------------------------------------------------------------------------------------


def test_lengths_that_are_unknown_or_endless_stay_so():
    endless, unknown = from_function(example), from_iterable(iter([example(0)]))
    for build in (
        lambda s: s.batch(2),
        lambda s: s.window(2),
        lambda s: s.map(double).shuffle(2).pad_last(2).prefetch(),
        lambda s: s.repeat(2),
        lambda s: s.concat(examples(2)),
        lambda s: s.interleave(examples(2)),
    ):
        assert build(endless)._node.length == math.inf
        assert build(unknown)._node.length is None
    assert len(endless.take(3)) == len(endless.zip(examples(3))) == 3
    assert unknown.take(3)._node.length is None
    assert unknown.repeat()._node.length == math.inf
