"""The engine: what a run's own thread does. Nothing here is called from any other thread."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from toolshed.errors import ReplayWarning, RunError, StateError
from toolshed.paths import describe
from toolshed.run.clock import Clock
from toolshed.run.edits import ModelChange, change_model, editable, set_values
from toolshed.run.events import plain
from toolshed.run.feed import Feed
from toolshed.run.gathering import Gathering
from toolshed.run.leaf_history import LeafHistory
from toolshed.run.looks import Looks
from toolshed.run.parts import check_name
from toolshed.run.programs import Programs
from toolshed.run.publisher import Publisher
from toolshed.run.replay import Replay, is_whole
from toolshed.run.timeline import Edit, Segment, Snapshot, Timeline, size_of
from toolshed.run.watch import LeafWatch
from toolshed.state import TrainState
from toolshed.training import Context, Trainer
from toolshed.training.stepper import Stepper

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
      hyperparameters: what can be set, with the values that were last read, and the step of then.
      within: what it is in the middle of, in words; empty between two steps.
      clock: the time that training takes.
      programs: make its steps.
      looks: looks at them.
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
        self.hyperparameters: tuple[dict[str, float], int] = {}, self.step
        self.within = ""
        self.halts = False
        self._snapshot_every = snapshot_every
        self.programs = Programs(trainer, state, window=self.window, norms_every=norms_every)
        self.looks = Looks(self.programs, publisher, self.tell)
        self._replays = Replay(self.programs, self.feed)
        self._tape = self.programs.tape()
        self._gathering = Gathering(trainer, publisher, self.window)
        self.clock = Clock(self.step)
        self._stepper = Stepper(state)
        first = Snapshot(self.step, state, self.feed.position, 0, True, size_of(state))
        self.timeline = Timeline(first, device_budget=device_budget, host_budget=host_budget)
        self.found: Callable[[int, float], None] = lambda step, loss: None
        self.turned: Callable[[], None] = lambda: None
        self.save_every = 0
        self._batch: Any = None  # the last one: tells how many examples there are in a step
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
        return self._gathering.names.union(self.programs.recording.names)

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
            batches = self.feed.take_some(self._at_once(self.clock.together, self.step, goal))
            self.within = "a step"
            try:
                self.looks.make(self._stepper, self.step, batches, self._tape)
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
        """How many steps to make in one call: nothing that is due between two of them may be missed."""
        if most == 1 or self.looks.wants_alone(self._stepper, number):
            return 1
        watched = (watch.every for watch in self.looks.watches.values())
        rhythms = [self._snapshot_every, self.save_every, *watched]
        due = [number + every - number % every for every in rhythms if every]
        due += [edit.step for edit in self.timeline.here.again if edit.step > number]
        if goal is not None:
            due.append(goal)
        return self.programs.at_once(most, number, min(due, default=None))

    def watch(self, watch: LeafWatch) -> LeafHistory:
        """Begins a watch, in place of one of the same pattern."""
        with self._inside("reading its data"):
            batch = self.feed.take()
            self.feed.give_back()
        return self.looks.begin(watch, self._stepper.state, batch)

    def unwatch(self, pattern: str) -> None:
        """Ends a watch; what it saw is written down."""
        self.flush()
        self.looks.end(pattern)

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
            context = self.programs.careful.observe(before, batch)
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
        self.publisher.begin(self.clock.start(self.step))

    def tick(self) -> None:
        """Hands rows over and takes a snapshot, each when it is time."""
        if not self.clock.rings():
            return
        self._tell_pace()
        if self._snapshot_every is None and self.clock.wants_snapshot():
            start = time.monotonic()
            if _FEW * size_of(self._stepper.state) <= self.timeline.device_budget:
                self.take_snapshot()
            self.clock.snapshot_took(time.monotonic() - start)

    def end_training(self) -> None:
        """Stops the clock and hands over what is left."""
        self._tell_pace()

    def _tell_pace(self) -> None:
        pace = self.clock.look(self.step, self._batch, self._stepper.most)
        self.flush()
        self.publisher.pace(pace)

    def flush(self) -> None:
        """Hands the rows that were recorded over to the publisher."""
        blocks = self._tape.hand_over()
        if blocks:
            self.publisher.rows(blocks, self.programs.recording, self.found)
        self.looks.hand_over(self.timeline.current)

    def take_snapshot(self, *, pinned: bool = False, given: bool = False) -> None:
        """Keeps the present state in the timeline."""
        self.timeline.add(self._stepper.copy(), self.step, self.feed.position, pinned=pinned, given=given)

    # --- windows ------------------------------------------------------------------------------------

    def end_window(self) -> None:
        """Hands the metrics over, if a window ends here."""
        if self.step % self.window == 0:  # to ask a packed state for its values takes longer than this
            self._gathering.end(self.step, self._stepper.state)

    def evaluate(self, data: Any) -> dict[str, float]:
        """Loss and metrics of the present state on other data. Waits for the device."""
        start = time.monotonic()
        with self._inside("an evaluation"):
            values = self._gathering.evaluate(self.step, self._stepper.state, data)
        self.clock.leave_out(start)
        return values

    def window_values(self) -> dict[str, float]:
        """The mean loss and the metrics of the window that ends here. Waits for the device."""
        self.flush()
        return self._gathering.values(self.step, self._stepper.state)

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
        self.step = self.clock.counted = step
        self.timeline.current = part.name
        self.publisher.switch(part.name)
        self.read_hyperparameters()
        self.tell("moved", f"went from step {left:,} to step {step:,}", **{"from": left, "to": step})
        self.turned()

    def explain(self, step: int, branch: str | None = None) -> Context:
        """Everything that the step which led to ``step`` knew. Moves nothing."""
        return self.look_at(step, branch, self.programs.careful.observe)

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
            self.clock.leave_out(start)

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
        tape = self.programs.tape()
        stepper = None
        for _, stepper in self._replays.states(part, snapshot, step, tape):  # noqa: B007
            self.check_halt()
        assert stepper is not None
        blocks = tape.hand_over()
        if blocks:
            self.publisher.finish()
            known = self.publisher.history.series("train/loss", part.name)
            text = self._replays.difference(known, blocks, part, snapshot, step)
            if text is not None:
                self.tell("note", text)
                warnings.warn(text, ReplayWarning, stacklevel=2)
        return stepper

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
        done, tape = snapshot.step, self.programs.tape()
        if self.feed.goes_back:
            self.publisher.finish()  # what was recorded after the last values that are written may be lost
            written = max(part.start, self.publisher.last_step(part.name))
            earlier = self.timeline.newest(part, min(self.step, written))
            if self.timeline.lost_between(part, earlier, self.step) is None:
                snapshot = earlier
            done = self._replays.last_whole(part, snapshot, self.step)
            self._stepper = self._replays.last(part, snapshot, done, tape)
        else:
            self._stepper = Stepper(snapshot.on_device)
        self.step = self.clock.counted = done
        self._tape = self.programs.tape()
        self.publisher.missing_rows(tape.take(), self.programs.recording, self.found)
        part.head = max(done, self.publisher.last_step(part.name))

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
