"""One training of a run, from its start to its end, in the run's own thread."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from toolshed.latch import Latch
from toolshed.run.engine import Engine
from toolshed.run.events import one_line
from toolshed.run.until import Condition
from toolshed.state import TrainState
from toolshed.training import Context, EarlyStop
from toolshed.training.watches import Monitor, Watch

_NAP = 0.001  # seconds


class Ending(NamedTuple):
    """How a training ended.

    Attributes:
      status: "finished", "paused", "stopped" or "failed".
      message: why, in words; or empty.
      error: what was raised, or None.
    """

    status: str
    message: str = ""
    error: BaseException | None = None


class Keeps(Protocol):
    """What saves states. Its methods are called in the run's thread, and raise nothing."""

    def at_start(self) -> None:
        """A training is about to begin."""

    def after_step(self) -> None:
        """A step is done, and what its window asked for."""

    def at_rest(self) -> None:
        """A training has ended, or somebody changed the state by hand."""


class Training:
    """Steps until the goal, a condition, a watch or a wish.

    Args:
      engine: what steps.
      goal: the step to end at, or None.
      until: asked at the end of each window.
      watches: called there.
      eval_data: evaluated there, or None.
      serve: called between steps while ``is_waiting()`` says that somebody asked for something.
      is_waiting: see above.
      keep: called at the end of each step, after its window's.

    Attributes:
      wish: "pause" or "stop", once somebody wants that. Set from any thread.
      is_evaluating: whether the steps are waiting for an evaluation.
      lost: what the device raised where the values of a step could not be read, or None.
      over: set when it is over, and the run knows how it ended.
    """

    def __init__(
        self,
        engine: Engine,
        goal: int | None,
        until: Condition | None,
        watches: Sequence[Watch],
        eval_data: Any,
        *,
        serve: Callable[[], None],
        is_waiting: Callable[[], bool],
        keep: Callable[[], None] | None = None,
    ):
        self.wish: str | None = None
        self.is_evaluating = False
        self.lost: Exception | None = None
        self.over = Latch()
        self._engine = engine
        self._goal = goal
        self._until = until
        self._watches = watches
        self._eval_data = eval_data
        self._serve = serve
        self._is_waiting = is_waiting
        self._keep = keep

    def run(self) -> Ending:
        """Trains. The engine is at the end of a completed step afterwards, whatever happened."""
        engine = self._engine
        engine.begin_training()
        try:
            ending = self._loop()
        except EarlyStop as stop:
            why = next(iter(str(stop).splitlines()), "")
            ending = Ending("finished", f"stopped early: {why}" if why else "stopped early")
        except BaseException as error:
            ending = self._failure(error)
        try:
            engine.end_training()
        except Exception as error:
            return self._failure(error) if ending.error is None else ending
        return ending

    def _loop(self) -> Ending:
        engine, goal, window, is_waiting = self._engine, self._goal, self._engine.window, self._is_waiting
        keep = self._keep
        while (wish := self.wish) is None:
            if goal is not None and engine.step >= goal:
                return Ending("finished")
            engine.advance(goal)
            if engine.step % window == 0 and self._ends_here():
                name = getattr(self._until, "__name__", "the condition")
                return Ending("finished", f"trained until {name}")
            engine.tick()
            if keep is not None:
                keep()
            if is_waiting():
                self._serve()
        return Ending("paused" if wish == "pause" else "stopped")

    def _failure(self, error: BaseException) -> Ending:
        return failure(self._engine, error)

    def _ends_here(self) -> bool:
        """What is done at the end of a window; whether training ends with it."""
        engine = self._engine
        engine.end_window()
        self._let_values_be_written()
        values: dict[str, float] = {}
        if self._eval_data is not None:
            self.is_evaluating = True
            try:
                values = engine.evaluate(self._eval_data)
            finally:
                self.is_evaluating = False
        if self._until is None and not self._watches:
            return False
        values = {**engine.window_values(), **values}
        for watch in self._watches:
            changed = watch(engine.step, values, engine.state())
            if changed is not None:
                engine.replace(changed)
        return self._until is not None and bool(self._until(engine.step, values))

    def _let_values_be_written(self) -> None:
        """Waits where metrics take longer than the steps, so that few of them are kept in memory."""
        while self._engine.publisher.is_behind and self.wish is None:
            if self._is_waiting():
                self._serve()
            time.sleep(_NAP)


def steps_by_hand(engine: Engine, n: int, keeps: Keeps | None) -> Context:
    """Makes ``n`` steps and gives everything that the last one knew; the steps before an error are done.

    Args:
      engine: what steps.
      n: how many.
      keeps: what keeps the run on the disk, or None.
    """

    def after_step() -> None:
        engine.end_window()
        if keeps is not None:
            keeps.after_step()

    if keeps is not None:
        keeps.at_start()
    try:
        last = engine.step + n - 1
        while engine.step < last:
            engine.advance(last)
            after_step()
            engine.check_halt()
        context = engine.step_by_hand()
        after_step()
    except BaseException:
        engine.recover()
        raise
    finally:
        engine.flush()
    return context


def start_watches(watches: Sequence[Watch], state: TrainState, eval_data: Any) -> None:
    """Has watches begin anew.

    Raises:
      ToolshedError: one monitors a value that there will not be.
    """
    gathered = [] if state.metrics is None else state.metrics.names
    names = ["train/loss", *(f"train/{name}" for name in gathered)]
    if eval_data is not None:
        names += ["eval/loss", *(f"eval/{name}" for name in gathered)]
    for watch in watches:
        if isinstance(watch, Monitor):
            watch.check(names, state)
            watch.restart()


def failure(engine: Engine, error: BaseException) -> Ending:
    """Says what was raised, and where the run is, which is at the end of a completed step."""
    engine.recover()
    step = engine.step
    words = one_line(error)
    error.add_note(
        f"The run stopped after step {step:,}, at batch {step + 1:,}; run.state is the state of step"
        f" {step:,}, and run.train() tries again from there."
    )
    lines = "".join(traceback.format_exception(error))
    engine.tell("error", f"{words} (after step {step:,}, at batch {step + 1:,})", traceback=lines)
    return Ending("failed", words, error)
