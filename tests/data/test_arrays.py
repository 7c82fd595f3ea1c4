"""Streams over arrays: every example once an epoch, in an order that the seed and the position fix."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolshed.data import ArrayStream, from_arrays, stack
from toolshed.errors import DataError

sizes = st.integers(1, 23)
seeds = st.integers(0, 2**32)


def numbered(n: int) -> dict[str, np.ndarray]:
    """Example i is i in one entry and [i, -i] in another, so that the two can be seen to stay together."""
    number = np.arange(n, dtype=np.int32)
    return {"number": number, "pair": np.stack([number, -number], axis=1).astype(np.float32)}


def epoch_of(stream: ArrayStream) -> list[int]:
    """The numbers of the real examples of the epoch that the stream is in, from its position on."""
    return [int(n) for batch in stream for n in real(batch)]


def real(batch: dict[str, Any]) -> Any:
    return batch["number"][batch["mask"]] if "mask" in batch else batch["number"]


def same(left: Any, right: Any) -> bool:
    return list(left) == list(right) and all(
        left[name].dtype == right[name].dtype and np.array_equal(left[name], right[name]) for name in left
    )


# --- epochs -----------------------------------------------------------------------------------------


@given(n=sizes, size=sizes, seed=seeds, last=st.sampled_from(["keep", "mask"]))
def test_every_epoch_is_a_permutation_of_all_examples(n, size, seed, last):
    stream = from_arrays(numbered(n), size, seed=seed, last=last)
    for epoch in range(3):
        assert stream.epoch == epoch
        assert sorted(epoch_of(stream)) == list(range(n))
        assert stream.position == (epoch + 1) * len(stream)


@given(n=sizes, size=sizes, seed=seeds)
def test_what_drop_leaves_is_full_batches_of_different_examples(n, size, seed):
    if size > n:
        return
    stream = from_arrays(numbered(n), size, seed=seed, last="drop")
    numbers = epoch_of(stream)
    assert len(numbers) == n // size * size == len(set(numbers))
    assert set(numbers) <= set(range(n))


@given(n=sizes, size=sizes, seed=seeds, last=st.sampled_from(["keep", "drop", "mask"]))
def test_the_entries_of_an_example_stay_together(n, size, seed, last):
    if last == "drop" and size > n:
        return
    for batch in from_arrays(numbered(n), size, seed=seed, last=last):
        assert np.array_equal(batch["pair"], np.stack([batch["number"], -batch["number"]], axis=1))
        assert batch["number"].dtype == np.int32
        assert batch["pair"].dtype == np.float32


def test_epochs_differ_and_so_do_seeds_and_equal_seeds_agree():
    def orders(seed: int) -> list[list[int]]:
        stream = from_arrays(numbered(100), 7, seed=seed)
        return [epoch_of(stream) for _ in range(4)]

    assert orders(5) == orders(5)
    different = [*orders(5), *orders(6), list(range(100))]
    assert len({tuple(order) for order in different}) == len(different)


def test_seeds_and_epochs_are_not_added_up():
    """Were the order seeded by seed + epoch, seed 1 would begin where seed 0 is after an epoch."""
    zero, one = from_arrays(numbered(50), 50, seed=0), from_arrays(numbered(50), 50, seed=1)
    epoch_of(zero)
    assert epoch_of(zero) != epoch_of(one)


def test_without_shuffling_every_epoch_has_the_order_of_the_arrays():
    stream = from_arrays(numbered(10), 4, shuffle=False, seed=9)
    assert [batch["number"].tolist() for batch in stream] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert epoch_of(stream) == list(range(10))


# --- the last batch ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "last", "lengths"),
    [
        (10, "keep", [4, 4, 2]),
        (10, "drop", [4, 4]),
        (10, "mask", [4, 4, 4]),
        (8, "keep", [4, 4]),
        (8, "drop", [4, 4]),
        (8, "mask", [4, 4]),
        (3, "keep", [3]),
        (3, "mask", [4]),
    ],
)
def test_a_last_batch_is_kept_dropped_or_filled_up(n, last, lengths):
    stream = from_arrays(numbered(n), 4, last=last)
    assert len(stream) == len(lengths)
    assert [len(batch["number"]) for batch in stream] == lengths


def test_a_filled_up_batch_repeats_its_first_example_and_masks_it():
    stream = from_arrays(numbered(10), 4, shuffle=False, last="mask")
    batches = list(stream)
    assert [batch["mask"].tolist() for batch in batches] == [
        [True] * 4,
        [True] * 4,
        [True, True, False, False],
    ]
    assert all(batch["mask"].dtype == bool for batch in batches)
    assert batches[-1]["number"].tolist() == [8, 9, 8, 8]
    assert batches[-1]["pair"].tolist() == [[8, -8], [9, -9], [8, -8], [8, -8]]


@pytest.mark.parametrize("last", ["keep", "drop"])
def test_no_mask_is_added_where_none_was_asked_for(last):
    assert all("mask" not in batch for batch in from_arrays(numbered(10), 4, last=last))


@pytest.mark.parametrize("last", ["keep", "drop", "mask"])
def test_in_order_gives_every_example_once_in_order_and_moves_nothing(last):
    stream = from_arrays(numbered(10), 4, seed=3, last=last)
    next(iter(stream))
    before = stream.state()
    numbers = [int(n) for batch in stream.in_order() for n in real(batch)]
    assert numbers == list(range(10))
    assert stream.state() == before


# --- positions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", ["keep", "drop", "mask"])
def test_from_every_position_of_three_epochs_a_restored_stream_gives_the_same_batches(last):
    def make() -> ArrayStream:
        return from_arrays(numbered(10), 4, seed=8, last=last)

    stream, whole, states = make(), [], []
    for _ in range(3):
        states.append(stream.state())
        for batch in stream:
            whole.append(batch)
            states.append(stream.state())
    states = list({state["position"]: state for state in states}.values())
    assert [state["position"] for state in states] == list(range(3 * len(stream) + 1))
    for state in states:
        restored = make()
        restored.restore(state)
        rest = []
        while restored.position < len(whole):
            rest += list(restored)
        assert len(rest) == len(whole) - state["position"]
        assert all(map(same, rest, whole[state["position"] :]))


def test_a_stream_can_be_moved_back():
    stream = from_arrays(numbered(10), 4, seed=8)
    start = stream.state()
    first = list(stream)
    list(stream)
    stream.restore(start)
    assert all(map(same, list(stream), first))


def test_a_state_is_plain_data_that_later_steps_do_not_change():
    stream = from_arrays(numbered(10), 4, seed=8)
    state = stream.state()
    kept = dict(state)
    list(stream)
    assert state == kept
    assert all(isinstance(value, (int, str, bool)) for value in state.values())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (from_arrays(numbered(10), 4, seed=1), r"of another stream: seed 0 is not 1\.$"),
        (from_arrays(numbered(10), 5), r"of another stream: batch_size 4 is not 5\.$"),
        (from_arrays(numbered(10), 4, shuffle=False), r"of another stream: shuffle True is not False\.$"),
        (from_arrays(numbered(10), 4, last="mask"), r"of another stream: last 'keep' is not 'mask'\.$"),
        (from_arrays(numbered(11), 4), r"of another stream: fingerprint '\w+' is not '\w+'\.$"),
        (
            from_arrays({name: a[::-1] for name, a in numbered(10).items()}, 4),  # as long, in another order
            r"of another stream: fingerprint '\w+' is not '\w+'\.$",
        ),
        (
            from_arrays({"number": numbered(10)["number"].astype(np.int64), "pair": numbered(10)["pair"]}, 4),
            r"fingerprint",
        ),
        (from_arrays({"n": numbered(10)["number"], "pair": numbered(10)["pair"]}, 4), r"fingerprint"),
    ],
    ids=["seed", "batch size", "shuffle", "last", "longer", "reversed", "dtype", "name"],
)
def test_a_position_of_another_stream_is_refused_and_changes_nothing(other, message):
    stream = from_arrays(numbered(10), 4)
    next(iter(stream))
    with pytest.raises(DataError, match=message):
        other.restore(stream.state())
    assert other.position == 0
    twin = from_arrays(numbered(10), 4)
    twin.restore(stream.state())
    assert twin.position == 1


def test_a_state_that_lacks_something_is_refused():
    stream = from_arrays(numbered(10), 4)
    with pytest.raises(DataError, match=r"^Expected a stream's state with position, seed, .*; it lacks seed"):
        stream.restore({"position": 2})
    assert stream.position == 0


def test_a_position_that_is_none_is_refused():
    stream = from_arrays(numbered(10), 4)
    with pytest.raises(DataError, match="position"):
        stream.restore({**stream.state(), "position": -1})
    assert stream.position == 0


def test_batch_at_is_the_batch_of_that_position_and_moves_nothing():
    stream, reference = from_arrays(numbered(10), 4, seed=8), from_arrays(numbered(10), 4, seed=8)
    whole = [*reference, *reference, *reference]
    for position in (7, 0, 8, 3, 3, 1):  # in any order, over several epochs
        assert same(stream.batch_at(position), whole[position])
    assert stream.position == 0
    assert same(next(iter(stream)), whole[0])


def test_a_loop_that_was_broken_off_goes_on_where_it_was():
    stream, reference = from_arrays(numbered(10), 2, seed=8), from_arrays(numbered(10), 2, seed=8)
    whole = [*reference, *reference]
    taken = []
    for batch in stream:
        taken.append(batch)
        if len(taken) == 3:
            break
    assert stream.position == 3
    taken += list(stream)
    assert stream.position == 5
    taken += list(stream)
    assert all(map(same, taken, whole))
    assert len(taken) == len(whole)


def test_a_batch_is_a_copy_that_may_be_changed():
    stream = from_arrays(numbered(4), 4, shuffle=False)
    for batch in (stream.batch_at(0), next(stream.in_order())):
        batch["number"][:] = -1
    assert epoch_of(stream) == [0, 1, 2, 3]


def test_the_fingerprint_is_that_of_the_data_and_nothing_else():
    one = from_arrays(numbered(10), 4, seed=1)
    assert one.fingerprint == from_arrays(numbered(10), 5, seed=2, last="drop").fingerprint
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in numbered(10).items()}
    assert from_arrays(strided, 4).fingerprint == one.fingerprint
    swapped = dict(reversed(numbered(10).items()))
    assert from_arrays(swapped, 4).fingerprint == one.fingerprint
    assert len(one.fingerprint) == 64


def test_a_stream_takes_jax_arrays_lists_and_zero_sized_entries():
    stream = from_arrays(
        {"x": jax.numpy.arange(4), "y": [1, 2, 3, 4], "z": np.zeros((4, 0))}, 3, shuffle=False
    )
    batch = next(iter(stream))
    assert isinstance(batch["x"], np.ndarray)
    assert batch["y"].tolist() == [1, 2, 3]
    assert batch["z"].shape == (3, 0)
    assert len(stream.fingerprint) == 64


def test_without_a_batch_size_single_examples_come_in_the_order_that_batches_have():
    one_by_one, batched = from_arrays(numbered(10), None, seed=8), from_arrays(numbered(10), 4, seed=8)
    assert len(one_by_one) == 10
    for _ in range(2):
        assert [int(example["number"]) for example in one_by_one] == epoch_of(batched)
    example = one_by_one.batch_at(3)
    assert (example["number"].shape, example["pair"].shape, example["pair"].dtype) == ((), (2,), np.float32)
    example["pair"][:] = 99
    assert one_by_one.batch_at(3)["pair"].max() < 99
    assert repr(one_by_one) == "ArrayStream(10 examples, one by one; epoch 2, example 0)"


def test_the_repr_says_what_it_streams_and_where_it_is():
    stream = from_arrays(numbered(10), 4)
    assert repr(stream) == "ArrayStream(10 examples, 3 batches of 4; epoch 0, batch 0)"
    stream.restore({**stream.state(), "position": 4})
    assert repr(stream) == "ArrayStream(10 examples, 3 batches of 4; epoch 1, batch 1)"


# --- wrong arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({}, {}, r"^Expected arrays by name, got an empty dict\.$"),
        ({"x": np.zeros((0, 2))}, {}, r"^The arrays hold no example\.$"),
        ({"x": np.zeros(3), "y": np.zeros(4)}, {}, r"number of examples: x 3, y 4\.$"),
        ({"x": np.float32(1)}, {}, r"^x is a scalar; expected an array whose first axis"),
        ({"x": np.array(["a", "b"])}, {}, r"^x is <U1\[2\]; expected numbers\. Encode it first\.$"),
        ({"x": np.array([None, 1])}, {}, r"^x is object\[2\]; expected numbers"),
        ({"x": np.zeros(3)}, {"batch_size": 0}, r"^batch_size is 0; expected a whole number from 1\.$"),
        ({"x": np.zeros(3)}, {"batch_size": 2.0}, r"^batch_size is 2\.0; expected"),
        ({"x": np.zeros(3)}, {"last": "pad"}, r"^last is 'pad'; expected 'keep', 'drop' or 'mask'\.$"),
        (
            {"x": np.zeros(3)},
            {"batch_size": 4, "last": "drop"},
            r"leaves no batch: batch_size is 4, there are 3",
        ),
        ({"x": np.zeros(3), "mask": np.ones(3)}, {"last": "mask"}, r"have one already\. Rename it\.$"),
    ],
)
def test_a_stream_that_could_give_no_right_batch_is_refused_at_once(arrays, options, message):
    with pytest.raises(DataError, match=message):
        from_arrays(arrays, **{"batch_size": 2, **options})


def test_a_seed_that_cannot_seed_is_refused_at_once_and_not_in_the_middle_of_training():
    with pytest.raises(DataError, match="seed"):
        from_arrays(numbered(4), 2, seed=-1)


# --- stack and batch_size ---------------------------------------------------------------------------


def test_stack_puts_batches_under_one_another_along_a_new_first_axis():
    batches = [{"x": np.full((2, 3), i, np.float32), "y": np.int32(i)} for i in range(4)]
    stacked = stack(batches)
    assert {name: (array.shape, array.dtype) for name, array in stacked.items()} == {
        "x": ((4, 2, 3), np.float32),
        "y": ((4,), np.int32),
    }
    assert stacked["x"][:, 0, 0].tolist() == stacked["y"].tolist() == [0, 1, 2, 3]
