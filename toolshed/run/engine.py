"""The engine: what a run's own thread does. Nothing here is called from any other thread."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from toolshed.errors import ReplayWarning, RunError, StateError
from toolshed.paths import describe
from toolshed.run.edits import ModelChange, change_model, editable, set_values
from toolshed.run.events import plain
from toolshed.run.feed import Feed, examples_in
from toolshed.run.parts import check_name
from toolshed.run.publisher import OWN_NAMES, Pace, Publisher
from toolshed.run.recording import recording_for
from toolshed.run.replay import first_difference, first_leaf, is_whole
from toolshed.run.timeline import Edit, Kept, Segment, Snapshot, Timeline, size_of
from toolshed.state import TrainState
from toolshed.training import Context, Trainer, TrainStep
from toolshed.training.stepper import Stepper, at_once
from toolshed.training.tape import Tape, read_block

_FLUSH_EVERY = 0.1  # seconds between two times that rows are handed over
_SNAPSHOT_EVERY = 1.0  # seconds between two snapshots, where no number of steps was given
_SNAPSHOT_WAIT = 10.0  # seconds between two snapshots at the most
_FEW = 4  # snapshots must fit into the budget that often for any to be taken by time


class Engine:
    """A state, the place in the data and the timeline, moved on together.

    Each method that moves leaves all of them at the end of a completed step, also when it raises.

    Args:
      trainer: the optimiser, the loss function, the metrics.
      state: where to begin. It is kept as it is, for going back.
      data: batches.
      publisher: is told of everything.
      window: steps over which metrics gather.
      norms_every: in every how many steps the norms are computed, 0 for never, None for what suits.
      snapshot_every: steps between two snapshots, or None for about one a second.
      device_budget: bytes for snapshots on the device.
      host_budget: bytes for snapshots on the host.

    Attributes:
      step: number of steps done.
      elapsed: seconds of training.
      hyperparameters: what can be set, with the values that were last read, and the step of then.
      within: what it is in the middle of, in words; empty between two steps.
      quick: the program of most steps.
      halts: set by any thread to have what is made again, or by hand, end after the present step.
      save_every: in every how many steps somebody may look at the state; 0 for whenever.
      turned: called when the state or its branch is another one, that did not come from a step.
    """

    def __init__(
        self,
        trainer: Trainer,
        state: TrainState,
        data: Any,
        publisher: Publisher,
        *,
        window: int | None,
        norms_every: int | None,
        snapshot_every: int | None,
        device_budget: int,
        host_budget: int,
    ):
        self.trainer = trainer
        self.feed = Feed(data)
        self.publisher = publisher
        length = self.feed.length
        self.window = window or (length if length and length >= 20 else 100)
        self.step = int(state.step)
        self.elapsed = 0.0
        self.hyperparameters: tuple[dict[str, float], int] = {}, self.step
        self.within = ""
        self.halts = False
        self._snapshot_every = snapshot_every
        self._recording = recording_for(state, norms_every=norms_every)
        self._norms_every = self._recording.norms_every
        self._measuring = trainer.build_step(fields=(), donate=True, record=self._recording.scalars)
        self.quick = trainer.build_step(fields=(), donate=True, record=self._recording.between)
        self._careful = trainer.build_step()
        self._tape = self.quick.tape()
        self._stepper = Stepper(state)
        first = Snapshot(self.step, state, self.feed.position, 0, True, size_of(state))
        self.timeline = Timeline(first, device_budget=device_budget, host_budget=host_budget)
        self.found: Callable[[int, float], None] = lambda step, loss: None
        self.turned: Callable[[], None] = lambda: None
        self.save_every = 0
        self._batch: Any = None  # the last one: tells how many examples there are in a step
        self._examples, self._counted = 0, self.step
        self._next_flush = self._next_snapshot = 0.0
        self._started = 0.0
        self._together = 1  # steps in a call, at the most; set by how long they take
        self.read_hyperparameters()

    # --- the state ----------------------------------------------------------------------------------

    def state(self) -> TrainState:
        """The state after the last completed step, in memory of its own."""
        return self._stepper.copy()

    def live_state(self) -> TrainState:
        """The same, in memory that the next step takes."""
        return self._stepper.state

    def read_hyperparameters(self) -> None:
        """Reads what can be set. Waits for the device."""
        found = editable(self._stepper.state)
        self.hyperparameters = {name: float(value) for name, value in found.items()}, self.step

    @property
    def own_names(self) -> frozenset[str]:
        """The names of the values that are written here."""
        metrics = [] if self.trainer.metrics is None else self.trainer.metrics.names
        gathered = [f"{split}/{name}" for split in ("train", "eval") for name in ("loss", *metrics)]
        return frozenset((*self._recording.names, *gathered, *OWN_NAMES))

    def check_halt(self) -> None:
        """Raises if somebody wants no more steps."""
        if self.halts:
            raise RunError("This was interrupted.")

    def tell(self, kind: str, text: str, **data: Any) -> None:
        """Says that something happened here and now."""
        self.publisher.event(kind, self.step, self.timeline.current, text, **data)

    # --- forwards -----------------------------------------------------------------------------------

    def advance(self, goal: int | None = None) -> None:
        """One step, or several where they are quick; afterwards they are done, or nothing has changed.

        Args:
          goal: the step not to go beyond, or None.
        """
        here = self.timeline.here
        if self.step < here.head:
            here = self._leave_the_past()
        self._edit_again(here)
        self.within = "reading its data"
        try:
            batches = self.feed.take_some(self._at_once(self._together, self.step, goal))
            self.within = "a step"
            try:
                self.make(self._stepper, self.step, batches, self._tape)
            except BaseException:
                self.feed.give_back()
                raise
        finally:
            self.within = ""
        self.step += len(batches)
        here.head = self.step
        self._batch = batches[-1]
        if self._snapshot_every and self.step % self._snapshot_every == 0:
            self.take_snapshot()

    def _at_once(self, most: int, number: int, goal: int | None) -> int:
        """How many steps can be made in one call from a step on, for one program has to make them all."""
        if most == 1:
            return 1
        rhythms = [self.window, self._snapshot_every or self.window, self.save_every or self.window]
        if self._measuring is not self.quick:
            if number % self._norms_every == 0:
                return 1
            rhythms.append(self._norms_every)
        room = [every - number % every for every in rhythms]
        room += [edit.step - number for edit in self.timeline.here.again if edit.step > number]
        return min(most, *room, *([] if goal is None else [goal - number]))

    def make(self, stepper: Stepper, number: int, batches: Sequence[Any], tape: Tape) -> None:
        """The steps from a number on, one for each batch, from any state."""
        stepper(self._step_for(number), batches, tape, anew=number % self.window == 0)

    def _step_for(self, number: int) -> TrainStep:
        """The program that makes a step; it follows from the step's number alone."""
        return self.quick if number % self._norms_every else self._measuring

    def step_by_hand(self) -> Context:
        """One step, with everything that it knew."""
        if self.step < self.timeline.here.head:
            self._leave_the_past()
        self._edit_again(self.timeline.here)
        before = self._stepper.copy()
        self.timeline.add(before, self.step, self.feed.position)
        with self._inside("a step"):
            batch = self.feed.take()
            self.feed.give_back()
            if self.step % self.window == 0:
                before = before.reset_metrics()
            context = self._careful.observe(before, batch)
        self.advance(self.step + 1)
        return context

    @contextlib.contextmanager
    def _inside(self, what: str) -> Iterator[None]:
        """Something that nobody may move the run in the middle of."""
        self.within = what
        try:
            yield
        finally:
            self.within = ""

    def begin_training(self) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        self._counted = self.step
        self.publisher.begin(Pace(self.step, self._examples, self.elapsed))
        self._next_flush = self._started
        self._next_snapshot = self._started + _SNAPSHOT_EVERY

    def tick(self) -> None:
        """Hands rows over and takes a snapshot, each when it is time."""
        now = time.monotonic()
        if now < self._next_flush:
            return
        self._next_flush = now + _FLUSH_EVERY
        self._together = at_once(self._stepper.most, self.step - self._counted, now - self._started)
        self.elapsed += now - self._started
        self._started = now
        self.flush()
        self._tell_pace()
        if now >= self._next_snapshot and self._snapshot_every is None:
            self._snapshot_by_time()

    def _snapshot_by_time(self) -> None:
        """A snapshot, and when the next one is due: the copying shall take a hundredth of the time."""
        start = time.monotonic()
        if _FEW * size_of(self._stepper.state) <= self.timeline.device_budget:
            self.take_snapshot()
        cost = time.monotonic() - start
        self._next_snapshot = start + min(max(_SNAPSHOT_EVERY, 100 * cost), _SNAPSHOT_WAIT)

    def end_training(self) -> None:
        """Stops the clock and hands over what is left."""
        self.elapsed += time.monotonic() - self._started
        self.flush()
        self._tell_pace()

    def _tell_pace(self) -> None:
        self._examples += (self.step - self._counted) * examples_in(self._batch)
        self._counted = self.step
        self.publisher.pace(Pace(self.step, self._examples, self.elapsed))

    def flush(self) -> None:
        """Hands the rows that were recorded over to the publisher."""
        blocks = self._tape.hand_over()
        if blocks:
            self.publisher.rows(blocks, self._recording, self.found)

    def take_snapshot(self, *, pinned: bool = False, given: bool = False) -> None:
        """Keeps the present state in the timeline."""
        self.timeline.add(self._stepper.copy(), self.step, self.feed.position, pinned=pinned, given=given)

    # --- windows ------------------------------------------------------------------------------------

    def end_window(self) -> None:
        """Hands the metrics over, if a window ends here."""
        if self.step % self.window:
            return
        metrics = self._stepper.state.metrics
        if metrics is not None:
            kept = metrics.with_states(jax.tree.map(lambda leaf: leaf.copy(), metrics.states))
            self.publisher.values(self.step, lambda: _named("train", kept.compute()))

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss and metrics of the present state on other data. Waits for the device."""
        start = time.monotonic()
        with self._inside("an evaluation"):
            values = _named("eval", self.trainer.evaluate(self._stepper.state, data))
        self._started += time.monotonic() - start  # its time is not that of the steps
        self.publisher.values(self.step, lambda: values, kind="evaluated")
        return values

    def window_values(self) -> dict[str, float]:
        """The mean loss and the metrics of the window that ends here. Waits for the device."""
        self.flush()
        self.publisher.finish()
        series = self.publisher.history.series("train/loss")
        recent = series.values[series.steps > self.step - self.window]
        values = {"train/loss": float(np.mean(recent))} if len(recent) else {}
        return values | _named("train", self._stepper.state.compute_metrics())

    def replace(self, state: TrainState, *, pinned: bool = False) -> None:
        """Goes on from another state at the same step, as a watch may ask for.

        Args:
          state: the other state.
          pinned: whether to keep its snapshot whatever the budget.
        """
        if not isinstance(state, TrainState):
            raise StateError(f"Expected a watch to give a TrainState or None, got {describe(state)}.")
        self._stepper = Stepper(state)
        self.take_snapshot(pinned=pinned, given=not pinned)
        self.read_hyperparameters()
        self.turned()

    # --- back and forth -----------------------------------------------------------------------------

    def goto(self, step: int, branch: str | None = None) -> None:
        """To the state at a step that was made, bit for bit."""
        part = self.timeline.owner(step, branch)
        self.feed.check_goes_back()
        self.flush()
        left, position = self.step, self.feed.position
        try:
            with self._inside("going to another step"):
                self._stepper = self._replay(part, step)
        except BaseException:
            self.feed.restore(position)
            raise
        self.step = self._counted = step
        self.timeline.current = part.name
        self.publisher.switch(part.name)
        self.read_hyperparameters()
        self.tell("moved", f"went from step {left:,} to step {step:,}", **{"from": left, "to": step})
        self.turned()

    def explain(self, step: int, branch: str | None = None) -> Context:
        """Everything that the step which led to ``step`` knew. Moves nothing."""
        return self.look_at(step, branch, self._careful.observe)

    def look_at(self, step: int, branch: str | None, look: Callable[[TrainState, Any], Any]) -> Any:
        """``look(state, batch)`` of the step which led to ``step``. Moves nothing."""
        part = self.timeline.owner(step, branch)
        while step == part.start and part.parent is not None:  # the step that led there is the parent's
            part = self.timeline.owner(step, part.parent)
        if step <= part.start:
            raise RunError(f"This run begins at step {part.start:,}; no step of it led there.")
        with self.aside("looking at another step"):
            before = self._replay(part, step - 1)
            if (step - 1) % self.window == 0:
                before.reset_metrics()
            return look(before.copy(), self.feed.take())

    def made_again(self, step: int) -> TrainState:
        """The state at a step of the present branch; the feed stands behind it."""
        return self._replay(self.timeline.owner(step), step).state

    @contextlib.contextmanager
    def aside(self, what: str) -> Iterator[None]:
        """Something that reads the data, and after which all is as it was."""
        self.feed.check_goes_back()
        self.flush()
        start, position = time.monotonic(), self.feed.position
        try:
            with self._inside(what):
                yield
        finally:
            self.feed.restore(position)
            self._started += time.monotonic() - start  # its time is not that of the steps

    def fork(self, name: str | None) -> str:
        """Begins a branch here, and gives its name."""
        name = self.timeline.free_name(self.timeline.current) if name is None else name
        check_name("A branch", name)
        if name in self.timeline.segments:
            raise RunError(f"There is a branch {name!r} already; choose another name.")
        self.flush()
        parent = self.timeline.current
        first = Snapshot(self.step, self.state(), self.feed.position, 0, True, size_of(self.live_state()))
        self.timeline.begin(name, first)
        self.publisher.begin_branch(name, self.step)
        self.tell("branched", f"{name} begins at step {self.step:,} of {parent}", name=name, parent=parent)
        self.turned()
        return name

    def _leave_the_past(self) -> Segment:
        """The future of this step exists already: what is made now goes onto a branch of its own."""
        self.fork(None)
        return self.timeline.here

    def _replay(self, part: Segment, step: int) -> Stepper:
        """The state at a step, made again from the snapshot before it; the feed stands behind it."""
        snapshot = self.timeline.nearest(part, step)
        tape = self.quick.tape()
        stepper = None
        for _, stepper in self._again(part, snapshot, step, tape):  # noqa: B007
            self.check_halt()
        assert stepper is not None
        blocks = tape.hand_over()
        if blocks:
            self._compare(part, blocks, snapshot, step)
        return stepper

    def _make_again(self, part: Segment, snapshot: Snapshot | Kept, step: int, tape: Tape) -> Stepper:
        *_, (_, last) = self._again(part, snapshot, step, tape)
        return last

    def _again(
        self, part: Segment, snapshot: Snapshot | Kept, step: int, tape: Tape, *, one_by_one: bool = False
    ) -> Iterator[tuple[int, Stepper]]:
        """The states from a snapshot to a step, one after another, and their steps; the feed moves along."""
        stepper = Stepper(snapshot.on_device)
        self.feed.restore(snapshot.position)
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
            batches = self.feed.take_some(self._at_once(1 if one_by_one else stepper.most, number, end))
            self.make(stepper, number, batches, tape)
            number += len(batches)

    def _compare(self, part: Segment, blocks: list[Any], snapshot: Snapshot | Kept, step: int) -> None:
        """Says so if the steps that were made again had other losses than the first time."""
        self.publisher.finish()
        known = self.publisher.history.series("train/loss", part.name)
        found = first_difference(known, map(read_block, blocks))
        if found is None:
            return
        where = self._where_it_differs(part, snapshot, step)
        text = (
            f"Step {found.step:,} came out differently when it was made again from step {snapshot.step:,}:"
            f" its loss was {found.before}, now it is {found.now}.{where}"
            " The device's kernels may not be deterministic, or the data not the same."
        )
        self.tell("note", text)
        warnings.warn(text, ReplayWarning, stacklevel=2)

    def _where_it_differs(self, part: Segment, snapshot: Snapshot | Kept, step: int) -> str:
        """The first leaf that differs from what was kept, where a later snapshot tells."""
        later = [other for other in part.snapshots if other.step > step and other.edits == snapshot.edits]
        if not later or later[0].pinned or later[0].given:
            return ""
        position = self.feed.position
        stepper = self._make_again(part, snapshot, later[0].step, self.quick.tape())
        self.feed.restore(position)
        path = first_leaf(later[0].state, stepper.state)
        return "" if path is None else f" By step {later[0].step:,} the first leaf that differs is {path}."

    def recover(self) -> None:
        """Sees to it that there is a whole state, also where the device failed and took it with it.

        The last completed step is then the last one that can be made again, from the newest snapshot that
        is whole. What it and those before it recorded is written down, if it was not yet.
        """
        if is_whole(self.live_state):
            return
        part = self.timeline.here
        part.snapshots = [kept for kept in part.snapshots if is_whole(lambda kept=kept: kept.state)]
        snapshot = self.timeline.newest(part, self.step)
        done, tape = snapshot.step, self.quick.tape()
        if self.feed.goes_back:
            self.publisher.finish()  # what was recorded after the last values that are written may be lost
            written = max(part.start, self.publisher.last_step(part.name))
            earlier = self.timeline.newest(part, min(self.step, written))
            if self.timeline.lost_between(part, earlier, self.step) is None:
                snapshot = earlier
            done = self._last_whole(part, snapshot)
            self._stepper = self._make_again(part, snapshot, done, tape)
        else:
            self._stepper = Stepper(snapshot.on_device)
        self.step = self._counted = done
        self._tape = self.quick.tape()
        self.publisher.missing_rows(tape.take(), self._recording, self.found)
        part.head = max(done, self.publisher.last_step(part.name))

    def _last_whole(self, part: Segment, snapshot: Snapshot | Kept) -> int:
        """The last step up to the present one whose state can be made."""
        done = snapshot.step
        try:
            tape = self.quick.tape()
            for number, stepper in self._again(part, snapshot, self.step, tape, one_by_one=True):
                jax.block_until_ready(stepper.state)
                done = number
        except Exception:
            pass
        return done

    # --- edits --------------------------------------------------------------------------------------

    def edit(self, values: Mapping[str, Any]) -> None:
        """Sets hyperparameters here and now."""
        before = editable(self._stepper.state)
        state = set_values(self._stepper.state, values)  # raises before anything has changed
        if self.step < self.timeline.here.head:
            self._leave_the_past()
        self._stepper = Stepper(state)
        self.timeline.here.again = []
        numbers = {name: float(value) for name, value in values.items()}
        self.timeline.here.edits.append(Edit(self.step, numbers))
        for name, new in numbers.items():
            old = float(before[name])
            words = f"{name}: {old:.6g} → {new:.6g}"
            self.tell("edited", words, name=name, old=plain(old), new=plain(new))
        self.read_hyperparameters()

    def _edit_again(self, here: Segment) -> None:
        """Makes the edits again that were made here before the run was attached to."""
        while here.again and here.again[0].step <= self.step:
            edit, *later = here.again
            self.edit(edit.values)
            here.again = later

    def edit_model(self, fn: Callable[[Any], Any]) -> ModelChange:
        """Changes the model here and now."""
        model = fn(self.state().model)
        if model is None:
            raise RunError("The function gave None; expected it to return the changed model.")
        state, change = change_model(self._stepper.state, model)
        if self.step < self.timeline.here.head:
            self._leave_the_past()
        self.replace(state, pinned=True)
        data = {name: list(getattr(change, name)) for name in change._fields}
        self.tell("model_edited", f"model changed: {change}", **data)
        return change


def _named(split: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{split}/{name}": value for name, value in values.items()}
