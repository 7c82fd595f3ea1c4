"""Tape: scalars of every step, written on the device and fetched in blocks.

Reading a scalar from the device after each step costs more than a small step itself. A tape is one
small array that the compiled step carries along and writes a row into; the host fetches many rows at
once. Rows are int32: the step's number, then each scalar as the bits of a float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, Shaped


class Scalar(NamedTuple):
    """A scalar of a step that is recorded, beside those that have a path in the Context.

    Attributes:
      name: what it is called.
      of: ``of(context, opt_state)`` gives it, called while the step is traced, with all of the Context
        and with the optimiser's state after the update.
    """

    name: str
    of: Callable[[Any, Any], Any]


class Rows(NamedTuple):
    """Rows taken off a tape.

    Attributes:
      steps: the number of each step, before its increment, int32[n].
      values: the scalars of each step, float32[n, k].
    """

    steps: Int32[np.ndarray, " n"]
    values: Float32[np.ndarray, "n k"]


def new_block(capacity: int, width: int) -> Int32[Array, "rows columns"]:
    """An empty block, int32[capacity, width + 1]: no row has a step's number yet."""
    return jnp.full((capacity, width + 1), -1, jnp.int32)


def write_rows(
    block: Int32[Array, "rows columns"], steps: Int32[Array, " n"], scalars: list[Shaped[Array, " n"]]
) -> Int32[Array, "rows columns"]:
    """The block with one more row a step. Runs inside the compiled step.

    A row's place follows from its step's number alone. So the block is written to and never read, and
    the compiler need not copy it.

    Args:
      block: int32[capacity, k + 1].
      steps: the steps' numbers, int32[n], consecutive; n is at most the capacity.
      scalars: k arrays of one value a step, each [n].
    """
    bits = [jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32) for x in scalars]
    rows = jnp.stack([steps, *bits], axis=1)
    if len(steps) == 1:
        return jax.lax.dynamic_update_slice(block, rows, (jax.lax.rem(steps[0], len(block)), 0))
    return block.at[steps % len(block)].set(rows, unique_indices=True)


def read_block(block: Any) -> Rows:
    """The rows written to a block, by step. Waits for the device."""
    host = np.asarray(block)
    host = host[host[:, 0] >= 0]
    host = host[np.argsort(host[:, 0])]
    return Rows(host[:, 0], np.ascontiguousarray(host[:, 1:]).view(np.float32))


class Tape:
    """A recording of scalars, in blocks of bounded size.

    Owned by one loop and used from one thread. The step writes through `block`; `take` gives what was
    written since the last time. A tape never makes the step wait: when a block is full the next one is
    started, and full blocks stay on the device until they are taken.

    Attributes:
      names: the scalars' Context paths or names, in the order of the columns.
      capacity: rows in a block.
      block: the device array that the next step writes to and replaces.
    """

    __slots__ = ("_free", "_full", "_next_step", "block", "capacity", "names")

    def __init__(self, names: tuple[str, ...], capacity: int = 1024):
        if capacity < 1:
            raise ValueError(f"Expected a capacity of at least 1 row, got {capacity}.")
        self.names, self.capacity = names, capacity
        self.block = new_block(capacity, len(names))
        self._free = capacity
        self._next_step: Any = None
        self._full: list[Any] = []

    def reserve(self, names: tuple[str, ...], rows: int, step: Any) -> jax.Array:
        """The block for a step that is going to write ``rows`` rows of these scalars.

        Args:
          names: the scalars.
          rows: how many steps are made.
          step: the number of the first of them, on the device. A step that does not follow the one
            recorded last, because the user went back to an older state, gets a block of its own.

        Raises:
          ValueError: the tape is for other scalars, or its blocks are too short.
        """
        if names is not self.names and names != self.names:
            raise ValueError(
                f"This tape records {', '.join(self.names)}; the step records {', '.join(names)}. Make the"
                " tape with step.tape()."
            )
        if rows > self._free:
            if rows > self.capacity:
                raise ValueError(
                    f"The tape's capacity is {self.capacity} rows, and one call writes {rows}. Make the tape"
                    " with step.tape()."
                )
            self.turn()
        elif step is not self._next_step and self._free < self.capacity:
            self.turn()
        return self.block

    def wrote(self, block: jax.Array, rows: int, next_step: Any) -> None:
        """Takes back the block from the step that wrote ``rows`` rows and led to ``next_step``."""
        self.block = block
        self._next_step = next_step
        self._free -= rows
        if not self._free:
            self.turn()

    def turn(self) -> None:
        """Starts a new block; what the old one holds is there to be taken."""
        full, empty = self.block, new_block(self.capacity, len(self.names))
        self._full.append(full)
        # It lies where the step wants it, or the step would be traced again.
        self.block = jax.device_put(empty, full.sharding) if full.committed else empty
        self._free = self.capacity

    def take(self) -> Rows:
        """All rows that were not taken yet, oldest first. Waits for the steps that wrote them."""
        if self._free < self.capacity:
            self.turn()
        full, self._full = self._full, []
        return _join([read_block(block) for block in full], len(self.names))

    def hand_over(self) -> list[jax.Array]:
        """All blocks with rows that were not taken yet, to be read elsewhere by `read_block`."""
        if self._free < self.capacity:
            self.turn()
        full, self._full = self._full, []
        return full

    def take_ready(self) -> Rows:
        """The rows of those full blocks that the device has finished. Waits for nothing."""
        ready = []
        while self._full and self._full[0].is_ready():
            ready.append(read_block(self._full.pop(0)))
        return _join(ready, len(self.names))


def _join(rows: list[Rows], width: int) -> Rows:
    if not rows:
        return Rows(np.zeros(0, np.int32), np.zeros((0, width), np.float32))
    return Rows(np.concatenate([r.steps for r in rows]), np.concatenate([r.values for r in rows]))
