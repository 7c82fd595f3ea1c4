"""A tape gives each row once, in order, bit for bit, however it is read."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed import Tape
from toolshed.training.tape import Rows, new_block, read_block, write_rows

NAMES = ("loss_total", "aux/other")
ARRAYS = [np.int32(number) for number in range(200)]  # one object a step's number, as states have it


@jax.jit
def write(block: jax.Array, steps: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    return write_rows(block, steps, [first, second])


def record(tape: Tape, numbers: list[int]) -> None:
    """Writes one row a number: the number itself and two values made of it."""
    steps = np.array(numbers, np.int32)
    block = tape.reserve(NAMES, len(numbers), ARRAYS[numbers[0]])
    block = write(block, steps, steps / np.float32(8), -steps.astype(np.float32))
    tape.wrote(block, len(numbers), ARRAYS[numbers[-1] + 1])


def check(rows: Rows, numbers: list[int]) -> None:
    assert rows.steps.dtype == np.int32
    assert rows.values.dtype == np.float32
    assert rows.steps.tolist() == numbers
    assert rows.values.shape == (len(numbers), 2)
    assert rows.values.tolist() == [[number / 8, -float(number)] for number in numbers]


def test_an_empty_tape_gives_no_row_in_the_right_shape():
    tape = Tape(NAMES, 4)
    check(tape.take(), [])
    check(tape.take_ready(), [])
    check(read_block(new_block(4, 2)), [])


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 100])
def test_rows_come_in_order_over_many_blocks(capacity):
    tape = Tape(NAMES, capacity)
    for number in range(23):
        record(tape, [number])
    check(tape.take(), list(range(23)))


def test_a_second_take_gives_only_what_came_since():
    tape = Tape(NAMES, 4)
    record(tape, [0])
    record(tape, [1])
    check(tape.take(), [0, 1])
    check(tape.take(), [])
    record(tape, [2])
    check(tape.take(), [2])


def test_steps_made_again_from_an_older_state_are_recorded_again():
    tape = Tape(NAMES, 4)
    for number in [5, 6, 7, 6, 7, 5]:
        record(tape, [number])
    check(tape.take(), [5, 6, 7, 6, 7, 5])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_block_is_written_in_place(rows):
    steps, block = jnp.arange(rows, dtype=jnp.int32), new_block(5_000, 2)
    compiled = jax.jit(write, donate_argnums=0).lower(block, steps, steps / 8, steps / 8).compile()
    assert "copy" not in compiled.as_text()


def test_what_was_taken_is_the_caller_s_own():
    tape = Tape(NAMES, 2)
    record(tape, [1, 2])
    first = tape.take()
    record(tape, [3, 4])
    tape.take()
    check(first, [1, 2])


def test_take_ready_gives_full_blocks_and_leaves_the_one_that_is_being_written():
    tape = Tape(NAMES, 2)
    for number in range(5):
        record(tape, [number])
    jax.block_until_ready(tape.block)
    check(tape.take_ready(), [0, 1, 2, 3])
    check(tape.take_ready(), [])
    tape.turn()
    check(tape.take_ready(), [4])


def test_take_ready_waits_for_nothing_and_take_waits_for_the_device():
    @jax.jit
    def slow_write(block: jax.Array, step: jax.Array, x: jax.Array) -> jax.Array:
        x = jax.lax.fori_loop(0, 2_000, lambda _, x: jnp.tanh(x @ x), x)  # keeps the device busy
        return write_rows(block, step[None], [step[None] / 8 + 0 * x[0, :1], -step[None].astype(jnp.float32)])

    tape, x = Tape(NAMES, 1), jnp.ones((256, 256))
    slow_write(tape.block, np.int32(1), x).block_until_ready()
    record(tape, [0])
    jax.block_until_ready(tape._full)
    tape.wrote(slow_write(tape.reserve(tape.names, 1, ARRAYS[1]), np.int32(1), x), 1, ARRAYS[2])
    slow = tape._full[-1]
    record(tape, [2])
    first, second = tape.take_ready(), tape.take_ready()
    assert not slow.is_ready()  # the step that writes row 1 is under way still, so nothing has waited for it
    check(first, [0])
    check(second, [])  # row 2 may be there, but it comes after row 1
    check(tape.take(), [1, 2])


@settings(deadline=None, max_examples=60)
@given(
    capacity=st.integers(3, 7),
    actions=st.lists(st.sampled_from([1, 1, 2, 3, "turn", "take", "take_ready"]), max_size=25),
)
def test_every_row_comes_once_and_in_order_whatever_the_order_of_calls(capacity, actions):
    tape, written, taken = Tape(NAMES, capacity), [], []
    for action in actions:
        if action == "turn":
            tape.turn()
        elif isinstance(action, int):  # a call that writes as many rows
            new = list(range(len(written), len(written) + action))
            record(tape, new)
            written += new
        else:
            taken += getattr(tape, action)().steps.tolist()
        assert taken == written[: len(taken)]
    taken += tape.take().steps.tolist()
    assert taken == written


SPECIAL = [0x7FC00000, 0x7FC0BEEF, 0xFFC00001, 0x80000000, 0x7F800000, 0xFF800000, 0x00000001, 0x807FFFFF]


@pytest.mark.parametrize("bits", SPECIAL, ids=hex)
def test_the_bits_of_a_float_are_kept(bits):
    """NaN with its payload and sign, -0.0, both infinities, the smallest and largest denormal."""
    value = np.array([bits], np.uint32).view(np.float32)
    tape = Tape(NAMES, 2)
    tape.wrote(write(tape.block, np.int32([0]), value, np.float32([1])), 1, ARRAYS[1])
    assert tape.take().values[:, 0].view(np.uint32).tolist() == [bits]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=3, max_size=3))
def test_any_bits_of_a_float_are_kept(bits):
    values = np.array(bits, np.uint32).view(np.float32)
    tape = Tape(NAMES, 3)
    tape.wrote(write(tape.block, np.int32([5, 6, 7]), values, values[::-1]), 3, ARRAYS[8])
    rows = tape.take()
    assert rows.steps.tolist() == [5, 6, 7]
    assert rows.values[:, 0].view(np.uint32).tolist() == bits
    assert rows.values[:, 1].view(np.uint32).tolist() == bits[::-1]


def test_other_types_are_recorded_as_the_nearest_float32():
    tape = Tape(("half", "count", "flag"), 2)
    scalars = [jnp.bfloat16([1.5]), jnp.int32([16_777_217]), jnp.array([True])]
    tape.wrote(write_rows(tape.block, jnp.int32([0]), scalars), 1, ARRAYS[1])
    assert tape.take().values.tolist() == [[1.5, 16_777_216.0, 1.0]]


def test_a_tape_of_no_scalar_still_numbers_the_steps():
    tape = Tape((), 2)
    for number in range(3):
        block = tape.reserve(tape.names, 1, ARRAYS[number])
        tape.wrote(write_rows(block, jnp.int32([number]), []), 1, ARRAYS[number + 1])
    rows = tape.take()
    assert rows.steps.tolist() == [0, 1, 2]
    assert rows.values.shape == (3, 0)


def test_a_call_that_writes_more_rows_than_a_block_holds_is_an_error():
    tape = Tape(NAMES, 2)
    record(tape, [0])
    with pytest.raises(ValueError, match=r"^The tape's capacity is 2 rows, and one call writes 3\. Make"):
        record(tape, [1, 2, 3])
    record(tape, [1, 2])
    check(tape.take(), [0, 1, 2])


def test_a_step_that_records_other_scalars_is_an_error():
    with pytest.raises(
        ValueError, match=r"^This tape records loss_total, aux/other; the step records step\."
    ):
        Tape(NAMES, 2).reserve(("step",), 1, ARRAYS[0])


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_tape_without_room_is_an_error(capacity):
    with pytest.raises(ValueError, match=rf"^Expected a capacity of at least 1 row, got {capacity}\.$"):
        Tape(NAMES, capacity)
