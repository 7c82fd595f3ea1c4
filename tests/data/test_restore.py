"""A stream restored at any position gives what the first one gave from there on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.chains import chains, double, example, examples, jitter, plain
from toolshed.data import Stream, from_arrays, from_function, from_iterable
from toolshed.errors import DataError

EPOCHS = 3


def read(
    stream: Stream, epochs: int = EPOCHS
) -> tuple[list[list[Any]], list[tuple[int, int, dict[str, Any]]]]:
    """The items of each epoch; and of each position its epoch, the items before it there, and its state."""
    items, states = [], []
    for epoch in range(epochs):
        items.append([])
        states.append((epoch, 0, stream.state()))
        for item in stream:
            items[-1].append(plain(item))
            states.append((epoch, len(items[-1]), stream.state()))
    return items, states


def assert_restores(build: Callable[[], Stream]) -> None:
    """Every state gives the rest of its epoch and the epochs after it, each as one iteration."""
    items, states = read(build())
    assert all(items), "a chain without items shows nothing"
    for epoch, index, state in states:
        restored = build()
        restored.restore(json.loads(json.dumps(state)))
        assert restored.position == sum(map(len, items[:epoch])) + index
        expected = [rest for rest in [items[epoch][index:], *items[epoch + 1 :]] if rest]
        assert [list(map(plain, restored)) for _ in expected] == expected


@pytest.mark.parametrize("name", chains())
def test_from_every_position_of_three_epochs_a_restored_stream_gives_the_same(name):
    assert_restores(chains()[name])


@pytest.mark.parametrize("name", chains())
def test_a_stream_can_be_moved_back_to_any_position_it_was_at(name):
    stream = chains()[name]()
    items, states = read(stream, 2)
    for epoch, index, state in reversed(states):
        stream.restore(state)
        expected = [rest for rest in [items[epoch][index:], *items[epoch + 1 :]] if rest]
        assert [list(map(plain, stream)) for _ in expected] == expected


@pytest.mark.parametrize("name", chains())
def test_a_loop_that_is_broken_off_after_each_item_misses_none_and_doubles_none(name):
    items, _ = read(chains()[name](), 2)
    stream, taken = chains()[name](), []
    while len(taken) < sum(map(len, items)):
        for item in stream:
            taken.append(plain(item))
            break
    assert taken == [item for epoch in items for item in epoch]
    assert stream.position == len(taken)


@pytest.mark.parametrize("name", chains())
def test_the_length_of_a_stream_is_the_number_of_its_items(name):
    stream = chains()[name]()
    items, _ = read(stream, 1)
    assert len(stream) == len(items[0])


@pytest.mark.parametrize("name", chains())
def test_a_state_is_small_plain_data_that_later_items_do_not_change(name):
    stream = chains()[name]()
    for _ in zip(stream, range(2), strict=False):
        pass
    state = stream.state()
    written = json.dumps(state)
    list(stream)
    list(stream)
    assert json.dumps(state) == written
    assert len(written) < 3000


def test_a_wrong_position_would_be_noticed():
    """The negative control: a state moved by one item gives other items."""
    stream = examples(5)
    next(iter(stream))
    state = stream.state()
    state["at"]["index"] += 1
    restored = examples(5)
    restored.restore(state)
    assert list(map(plain, restored)) != list(map(plain, stream))


# --- random chains ----------------------------------------------------------------------------------

sources = st.integers(1, 9).flatmap(
    lambda n: st.sampled_from(
        [
            lambda: examples(n),
            lambda: from_function(example, n),
            lambda: from_arrays({"n": range(n), "x": [[i] * 2 for i in range(n)]}, None, seed=n),
        ]
    )
)
small, seeds = st.integers(1, 4), st.integers(0, 3)
one_to_one = st.one_of(
    st.tuples(st.just("shuffle"), st.tuples(small, seeds)),
    st.tuples(st.just("take"), st.tuples(st.integers(1, 9))),
    st.tuples(st.just("repeat"), st.tuples(st.integers(1, 2))),
    st.tuples(st.just("prefetch"), st.tuples(small)),
    st.just(("map", (double,))),
    st.builds(lambda seed: ("seeded", (seed,)), seeds),
    st.builds(lambda other: ("concat", (other,)), sources),
    st.builds(lambda other: ("interleave", (other,)), sources),
    st.builds(lambda other: ("zip", (other,)), sources),
    st.builds(lambda other, w, seed: ("weighted", (other, w, seed)), sources, small, seeds),
)
windowing = st.tuples(st.just("window"), st.tuples(st.just(1), small))
batching = st.tuples(st.just("batch"), st.tuples(small, st.sampled_from(["keep", "mask"])))
ends = st.tuples(st.none() | windowing, st.none() | batching)


def apply(stream: Stream, name: str, arguments: tuple[Any, ...]) -> Stream:
    def only_n(item: Any) -> dict[str, Any]:  # so that whatever is mixed has one structure
        return {"n": item["n"]}

    if name == "seeded":
        return stream.map(jitter, seed=arguments[0]).map(only_n)
    if name in ("concat", "interleave"):
        return getattr(stream.map(only_n), name)(arguments[0]().map(only_n))
    if name == "zip":
        return stream.zip(arguments[0]()).map(lambda pair: {"n": pair[0]["n"] + 100 * pair[1]["n"]})
    if name == "weighted":
        other, weight, seed = arguments
        return stream.map(only_n).interleave(other().map(only_n), weights=[weight, 1], seed=seed)
    return getattr(stream, name)(*arguments)


@settings(deadline=None, max_examples=40)
@given(source=sources, steps=st.lists(one_to_one, max_size=4), end=ends)
def test_random_chains_restore_at_every_position(source, steps, end):
    def build() -> Stream:
        stream = source()
        for name, arguments in [*steps, *filter(None, end)]:
            stream = apply(stream, name, arguments)
        return stream

    assert_restores(build)


# --- what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saved", "here", "message"),
    [
        (
            lambda: examples(5).shuffle(2, seed=1),
            lambda: examples(5).shuffle(2, seed=0),
            r"of another stream: it has shuffle\(2, seed=1\) where this one has shuffle\(2, seed=0\)\.$",
        ),
        (
            lambda: examples(5).batch(2).map(double),
            lambda: examples(5).batch(2),
            r"of another stream: it goes on with map\(double\)\.$",
        ),
        (
            lambda: examples(5),
            lambda: examples(5).batch(2).take(1),
            r"of another stream: this one goes on with batch\(2, last='keep'\) \| take\(1\)\.$",
        ),
        (
            lambda: examples(4).take(2),
            lambda: examples(5).take(2),
            r"it has from_iterable\(list of 4\) where this one has from_iterable\(list of 5\)\.$",
        ),
        (
            lambda: from_arrays({"x": [1, 2]}, 1).take(1),
            lambda: from_arrays({"x": [2, 1]}, 1).take(1),
            r"it has from_arrays\(2 examples, .*\) with data \w{64} where this one has from_arrays\(",
        ),
        (
            lambda: examples(4).concat(examples(2).shuffle(2)),
            lambda: examples(4).concat(examples(2).shuffle(3)),
            r"concat\(from_iterable\(list of 2\) \| shuffle\(2, seed=0\)\) where this one has concat\(",
        ),
        (
            lambda: examples(4).interleave(examples(2)),
            lambda: examples(4).interleave(examples(2), weights=[1, 2]),
            r"where this one has interleave\(from_iterable\(list of 2\), weights=\[1\.0, 2\.0\], seed=0\)",
        ),
        (
            lambda: examples(4).zip(from_arrays({"x": [1, 2]}, None)),
            lambda: examples(4).zip(from_arrays({"x": [2, 1]}, None)),
            r"zip\(from_arrays\(2 examples, .* with data \w+\) where",
        ),
    ],
)
def test_the_position_of_another_chain_or_data_set_is_refused_and_changes_nothing(saved, here, message):
    one, other = saved(), here()
    next(iter(one))
    next(iter(other))
    before = other.state()
    with pytest.raises(DataError, match=message):
        other.restore(one.state())
    assert other.state() == before


def test_prefetching_makes_no_other_stream():
    ahead, plain_one = examples(5).shuffle(3).prefetch(4), examples(5).shuffle(3)
    next(iter(ahead))
    plain_one.restore(ahead.state())
    assert list(map(plain, plain_one)) == list(map(plain, ahead))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"at": {"epoch": 0}},
            r"^The saved position is \{'epoch': 0\}; expected one like \{'block': 0|^The saved",
        ),
        ({"at": None}, r"^The saved position is None; expected one like"),
        (
            {"at": {"epoch": 0, "block": 0, "given": -1, "at": {"epoch": 0, "index": 0}}},
            r"^The saved position is",
        ),
        (
            {"at": {"epoch": 0, "block": 0, "given": 1.5, "at": {"epoch": 0, "index": 0}}},
            r"^The saved position is",
        ),
        ({"chain": None}, r"^The saved chain is None; expected a list of its steps\.$"),
        ({"position": -1}, r"^The saved position is -1; expected a whole number from 0\.$"),
        ({"epoch": "1"}, r"^The saved epoch is '1'; expected a whole number from 0\.$"),
        ({"index": None}, r"^The saved index is None; expected a whole number from 0\.$"),
    ],
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(change, message):
    stream = examples(5).shuffle(3)
    before = stream.state()
    with pytest.raises(DataError, match=message):
        stream.restore({**before, **change})
    assert stream.state() == before


def test_what_is_no_state_at_all_is_refused():
    with pytest.raises(DataError, match=r"^Expected a stream's state as a dict, got int\.$"):
        from_iterable([1]).restore(3)  # type: ignore[arg-type]
    with pytest.raises(
        DataError, match=r"^Expected a stream's state with position, .*; it lacks epoch, index"
    ):
        from_iterable([1]).restore({"position": 3})
    with pytest.raises(DataError, match=r"it lacks seed, batch_size, shuffle, last, fingerprint\.$"):
        from_arrays({"x": [1]}, 1).restore({"position": 3})
