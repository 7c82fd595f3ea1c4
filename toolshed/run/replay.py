"""Replay: steps made again from a snapshot, and whether they came out as they did the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from toolshed.paths import flatten
from toolshed.run.edits import set_values
from toolshed.run.feed import Feed
from toolshed.run.programs import Programs
from toolshed.run.timeline import Kept, Segment, Snapshot
from toolshed.run.track import Series
from toolshed.state import TrainState
from toolshed.training.stepper import Stepper
from toolshed.training.tape import Rows, Tape, read_block


class Replay:
    """Makes steps again. Belongs to the run's thread; the feed is where the last one left it.

    Args:
      programs: make the steps.
      feed: gives their batches.
    """

    def __init__(self, programs: Programs, feed: Feed):
        self._programs = programs
        self._feed = feed

    def states(
        self, part: Segment, snapshot: Snapshot | Kept, step: int, tape: Tape, *, one_by_one: bool = False
    ) -> Iterator[tuple[int, Stepper]]:
        """The states from a snapshot to a step, one after another, and their steps.

        Args:
          part: the branch that the snapshot is of.
          snapshot: where to begin.
          step: where to end.
          tape: takes what the steps record.
          one_by_one: leave no state out, also where several steps could be made in a call.
        """
        stepper = Stepper(snapshot.on_device)
        self._feed.restore(snapshot.position)
        edits = part.edits[snapshot.edits :]
        number = snapshot.step
        while True:
            for edit in edits:
                if edit.step == number:
                    stepper = Stepper(set_values(stepper.state, edit.values))
            yield number, stepper
            if number == step:
                return
            end = min([step, *(edit.step for edit in edits if edit.step > number)])
            most = 1 if one_by_one else stepper.most
            batches = self._feed.take_some(self._programs.at_once(most, number, end))
            self._programs.make(stepper, number, batches, tape)
            number += len(batches)

    def last(self, part: Segment, snapshot: Snapshot | Kept, step: int, tape: Tape) -> Stepper:
        """The state at a step; arguments as for `states`."""
        *_, (_, stepper) = self.states(part, snapshot, step, tape)
        return stepper

    def last_whole(self, part: Segment, snapshot: Snapshot | Kept, step: int) -> int:
        """The last step up to ``step`` whose state can be made."""
        done = snapshot.step
        try:
            for number, stepper in self.states(part, snapshot, step, self._programs.tape(), one_by_one=True):
                jax.block_until_ready(stepper.state)
                done = number
        except Exception:
            pass
        return done

    def difference(
        self, known: Series, blocks: list[Any], part: Segment, snapshot: Snapshot | Kept, step: int
    ) -> str | None:
        """In words, how steps that were made again differ from the first time; None where they do not.

        Args:
          known: the losses of the first time.
          blocks: what the steps recorded the second time.
          part: their branch.
          snapshot: where they began.
          step: where they ended.
        """
        found = first_difference(known, map(read_block, blocks))
        if found is None:
            return None
        where = self._where_it_differs(part, snapshot, step)
        return (
            f"Step {found.step:,} came out differently when it was made again from step {snapshot.step:,}:"
            f" its loss was {found.before}, now it is {found.now}.{where}"
            " The device's kernels may not be deterministic, or the data not the same."
        )

    def _where_it_differs(self, part: Segment, snapshot: Snapshot | Kept, step: int) -> str:
        """The first leaf that differs from what was kept, where a later snapshot tells."""
        later = [other for other in part.snapshots if other.step > step and other.edits == snapshot.edits]
        if not later or later[0].pinned or later[0].given:
            return ""
        position = self._feed.position
        stepper = self.last(part, snapshot, later[0].step, self._programs.tape())
        self._feed.restore(position)
        path = first_leaf(later[0].state, stepper.state)
        return "" if path is None else f" By step {later[0].step:,} the first leaf that differs is {path}."


class Difference(NamedTuple):
    """The first loss that came out differently.

    Attributes:
      step: the number of steps done with it.
      before: the loss of the first time.
      now: that of the second time.
    """

    step: int
    before: float
    now: float


def first_difference(known: Series, made_again: Iterable[Rows]) -> Difference | None:
    """The first step whose loss is not the known one, bit for bit; None where all are."""
    for rows in made_again:
        at = np.searchsorted(known.steps, rows.steps + 1)
        there = at < len(known.steps)
        before, now = known.values[at[there]], rows.values[there, 0]
        wrong = np.flatnonzero(~((before == now) | (np.isnan(before) & np.isnan(now))))
        if len(wrong):
            first = wrong[0]
            return Difference(int(rows.steps[there][first]) + 1, float(before[first]), float(now[first]))
    return None


def first_leaf(before: TrainState, now: TrainState) -> str | None:
    """The path of the first leaf that differs between two states of one model; None where none does."""
    again = _changing(now)
    for path, leaf in _changing(before).items():
        if not np.array_equal(np.asarray(leaf), np.asarray(again[path]), equal_nan=True):
            return path
    return None


def is_whole(state: Callable[[], TrainState]) -> bool:
    """Whether all arrays of a state can be read. Waits for the device."""
    try:
        there = state()
        there.check_alive()
        jax.block_until_ready(there)
    except Exception:  # what the device raises has no type of its own
        return False
    return True


def _changing(state: TrainState) -> dict[str, Any]:
    """The leaves that a step changes by their paths, parameters first."""
    parts = ("params", "model_state", "opt_state")
    return {path: leaf for name in parts for path, leaf in flatten({name: getattr(state, name)}).items()}
