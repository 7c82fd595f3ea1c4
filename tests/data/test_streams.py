"""A stream has one position, which iterating moves and which no other stream shares."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from tests.data.chains import arrays, double, example, examples, numbers
from toolshed.data import Stream, feed, from_arrays, from_function, from_iterable
from toolshed.errors import DataError


def test_each_iteration_is_the_next_epoch():
    stream = examples(3).shuffle(3, seed=1)
    epochs = [numbers(stream) for _ in range(4)]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert stream.position == 12
    assert stream.epoch == 4


def test_the_position_and_the_epoch_move_item_by_item():
    stream, seen = examples(2), []
    for _ in range(2):
        for _ in stream:
            seen.append((stream.position, stream.epoch))
    assert seen == [(1, 0), (2, 1), (3, 1), (4, 2)]  # after its last item an epoch is over


def test_an_epoch_of_unknown_length_is_over_when_nothing_follows():
    class Unsized:
        def __iter__(self) -> Any:
            return iter([1, 2])

    stream = from_iterable(Unsized())
    iterator = iter(stream)
    assert [next(iterator), next(iterator)] == [1, 2]
    assert stream.epoch == 0
    assert list(iterator) == []
    assert stream.epoch == 1


def test_a_loop_that_was_broken_off_at_the_last_item_goes_on_with_the_next_epoch():
    class Unsized:
        def __iter__(self) -> Any:
            return iter([1, 2])

    stream = from_iterable(Unsized())
    assert list(feed(stream, 2)) == [1, 2]
    assert list(feed(stream, 3)) == [1, 2, 1]
    assert list(feed(stream, 1)) == [2]
    assert stream.position == 6


def test_all_iterators_of_a_stream_move_its_one_position():
    stream = from_iterable(range(4))
    one, other = iter(stream), iter(stream)
    assert [next(one), next(other), next(one), next(other)] == [0, 1, 2, 3]
    assert list(one) == []


def test_restoring_moves_iterators_that_are_under_way():
    stream = from_iterable(range(4))
    start, iterator = stream.state(), iter(stream)
    assert [next(iterator), next(iterator)] == [0, 1]
    stream.restore(start)
    assert next(iterator) == 0


def test_dropping_one_iterator_leaves_the_others_where_they_were():
    stream = from_iterable(range(4))
    one, other = iter(stream), iter(stream)
    assert [next(one), next(other)] == [0, 1]
    del one
    assert list(other) == [2, 3]


def test_branches_of_a_chain_share_no_position():
    source = examples(4)
    next(iter(source))
    left, right = source.map(double), source.map(dict)
    assert numbers(left)[:2] == [0, 2]  # from its own beginning
    assert right.position == 0
    assert numbers(right) == [0, 1, 2, 3]
    assert numbers(source) == [1, 2, 3]
    assert source.position == 4


def test_branches_of_a_chain_can_be_read_in_turn():
    source = from_arrays(arrays(20), 2, seed=5)
    left, right = source.map(double), source.map(dict)
    pairs = [(a["n"].tolist(), b["n"].tolist()) for a, b in zip(left, right, strict=True)]
    assert [a for a, _ in pairs] == [[2 * n for n in b] for _, b in pairs]


def test_an_array_stream_keeps_its_own_position_beside_its_chains():
    source = from_arrays(arrays(6), 2, seed=5)
    chain = source.map(double)
    assert numbers(chain) == [(2 * source.batch_at(i)["n"]).tolist() for i in range(3)]
    assert source.position == 0


def test_the_chain_over_arrays_has_their_order_in_every_epoch():
    source, chain = from_arrays(arrays(7), 3, seed=5), from_arrays(arrays(7), 3, seed=5).take(9)
    assert [numbers(source) for _ in range(3)] == [numbers(chain) for _ in range(3)]


def test_an_empty_stream_gives_nothing_and_feed_says_so():
    stream = from_iterable([])
    assert list(stream) == []
    with pytest.raises(DataError, match=r"^The data gave no batch\."):
        list(feed(stream, 3))


def test_a_stream_is_true_whatever_its_length():
    assert from_function(example)
    assert from_iterable([])


def test_a_length_that_nobody_knows_is_a_type_error_that_says_why():
    with pytest.raises(TypeError, match=r"Stream\(from_function\(example, length=None\); .*\) has no end\.$"):
        len(from_function(example))
    with pytest.raises(TypeError, match=r"is not known before its end\.$"):
        len(from_iterable(iter([1])).batch(2))


def test_the_repr_is_the_chain_and_the_position():
    stream = examples(5).shuffle(3, seed=1).concat(examples(2).take(1)).batch(2).prefetch()
    next(iter(stream))
    assert repr(stream) == (
        "Stream(from_iterable(list of 5) | shuffle(3, seed=1) | concat(from_iterable(list of 2) | take(1))"
        " | batch(2, last='keep') | prefetch(2); epoch 0, item 1)"
    )
    list(stream)
    assert repr(stream).endswith("; epoch 1, item 0)")


# --- in order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: examples(5).shuffle(3).batch(2, last="drop"),
        lambda: from_arrays(arrays(5), 2, seed=3, last="drop").map(dict),
        lambda: from_arrays(arrays(5), None, seed=3).batch(2, last="drop").repeat().prefetch(),
        lambda: examples(5).shuffle(5).repeat(3).batch(2),
        lambda: (
            examples(2)
            .shuffle(2)
            .concat(from_arrays({"n": [2, 3, 4]}, None).map(dict))
            .map(lambda item: {"n": item["n"]})
            .batch(2)
        ),
    ],
)
def test_in_order_every_item_comes_once_in_order_and_nothing_moves(build):
    stream: Stream = build()
    next(iter(stream))
    before = stream.state()
    assert numbers(stream.in_order()) == [[0, 1], [2, 3], [4]]
    assert numbers(stream.in_order()) == [[0, 1], [2, 3], [4]]
    assert stream.state() == before


def test_in_order_a_masked_last_batch_stays_masked():
    assert [b["mask"].tolist() for b in examples(3).batch(2, last="mask").in_order()] == [
        [True, True],
        [True, False],
    ]


def test_in_order_keeps_what_belongs_to_the_items():
    stream = examples(6).shuffle(6).take(4).window(2, stride=2)
    assert numbers(stream.in_order()) == [[0, 1], [2, 3]]
    mixed = examples(4).interleave(examples(2))
    assert numbers(mixed.in_order()) == numbers(examples(4).interleave(examples(2)))


def test_in_order_pairs_stay_pairs():
    """Were the shuffled side unshuffled, or the endless side read once, other pairs would come out."""

    def pairs(of: Any) -> list[tuple[int, int]]:
        return [(int(a["n"]), int(b["n"])) for a, b in of]

    stream = examples(6).shuffle(6, seed=1).zip(examples(2).repeat())
    assert pairs(stream.map(tuple).in_order()) == pairs(stream)
    assert stream.epoch == 1


def test_in_order_without_an_end_is_an_error_at_once():
    with pytest.raises(
        DataError, match=r"^One pass over Stream\(.*\) has no end\. Say with take\(n\) how much"
    ):
        from_function(example).batch(2).in_order()
    assert numbers(from_function(example).take(2).in_order()) == [0, 1]


# --- wrong arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.repeat(0), r"^n is 0; expected a whole number from 1\.$"),
        (lambda s: s.repeat(True), r"^n is True; expected a whole number from 1\.$"),
        (lambda s: s.shuffle(0), r"^buffer_size is 0; expected a whole number from 1\.$"),
        (lambda s: s.shuffle(2, seed=-1), r"^seed is -1; expected a whole number from 0\.$"),
        (lambda s: s.batch(2.0), r"^n is 2\.0; expected a whole number from 1\.$"),
        (lambda s: s.batch(2, last="pad"), r"^last is 'pad'; expected 'keep', 'drop' or 'mask'\.$"),
        (lambda s: s.batch(4, last="drop"), r"^last='drop' leaves no batch: n is 4, there are 3 items\.$"),
        (lambda s: s.map(3), r"^map needs a function of an item, got int\.$"),
        (lambda s: s.map(double, seed="a"), r"^seed is 'a'; expected"),
        (lambda s: s.take(-1), r"^n is -1; expected a whole number from 0\.$"),
        (lambda s: s.pad_last(0), r"^n is 0; expected"),
        (lambda s: s.window(0), r"^size is 0; expected"),
        (lambda s: s.window(2, stride=0), r"^stride is 0; expected"),
        (lambda s: s.prefetch(0), r"^n is 0; expected"),
        (
            lambda s: s.prefetch(device="gpu"),
            r"^device is 'gpu'; expected a jax device, a jax\.sharding\.Sharding",
        ),
        (lambda s: s.concat([1, 2]), r"^Expected streams, got list\. See toolshed\.data\.stream\.$"),
        (lambda s: s.zip(3), r"^Expected streams, got int"),
        (lambda s: s.interleave(s, weights=[1]), r"^There are 1 weights for 2 streams\.$"),
        (
            lambda s: s.interleave(s, weights=[1, 0]),
            r"^The weights are \[1\.0, 0\.0\]; expected finite numbers above 0",
        ),
        (lambda s: s.interleave(s, weights=[1, np.nan]), r"^The weights are \[1\.0, nan\]; expected"),
        (lambda s: s.interleave(s, seed=0.5), r"^seed is 0\.5; expected"),
        (
            lambda s: from_iterable({"x": [1]}),
            r"^Expected an iterable of items, got one dict\. For arrays by name",
        ),
        (lambda s: from_iterable(3), r"^Expected an iterable of items, got int\.$"),
        (lambda s: from_function(3), r"^from_function needs a function of a number, got int\.$"),
        (lambda s: from_function(example, -1), r"^length is -1; expected a whole number from 0\.$"),
        (lambda s: from_arrays({"x": [1]}, None, last="mask"), r"^last='mask' is about batches; without"),
    ],
)
def test_what_could_give_no_right_item_is_refused_at_once(call, message):
    with pytest.raises(DataError, match=message):
        call(examples(3))


def test_numpy_s_whole_numbers_are_whole_numbers():
    assert len(examples(5).batch(np.int64(2)).take(np.int32(9))) == 3


def test_streams_give_numpy_arrays_and_only_prefetch_puts_them_on_a_device():
    batch = next(iter(examples(4).batch(2)))
    assert isinstance(batch["n"], np.ndarray)
    assert isinstance(next(iter(examples(4).batch(2).prefetch()))["n"], jax.Array)


@pytest.mark.parametrize(
    "make", [lambda: from_arrays(arrays(8), 2), lambda: examples(4).shuffle(4).prefetch(1)]
)
def test_a_copy_is_at_the_same_place_and_goes_its_own_way(make: Any):
    stream = make()
    iterator = iter(stream)
    first = next(iterator)
    twin = stream.copy()
    assert twin.position == 1
    rest = list(twin)
    assert (stream.position, twin.position) == (1, 1 + len(rest))
    seen = [on_host(one) for one in (first, *iterator)]
    assert seen[1:] == [on_host(one) for one in rest]
    assert seen[0] not in seen[1:]
    assert stream.state() == twin.state()


def on_host(item: Any) -> list[Any]:
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(item)]
