"""Control: asks a run's thread for things, and has it train, pause and stop."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from toolshed.errors import NonFiniteError, RunError
from toolshed.insight import Autopsy
from toolshed.latch import Latch
from toolshed.run import place
from toolshed.run.engine import Engine
from toolshed.run.events import one_line
from toolshed.run.finite import bad_now, last_finite
from toolshed.run.inquest import Inquest
from toolshed.run.serial import Serial, wait_whatever_comes
from toolshed.run.training import Ending, Keeps, Training, failure
from toolshed.run.until import Condition
from toolshed.training.watches import Watch


class Control:
    """The one thread that moves an engine, and what it is doing. Any thread may call any method.

    Args:
      engine: what is moved.
      name: of the run.
      eval_data: evaluated at the end of each window, or None.
      check_finite: whether a loss that is not finite pauses a training.

    Attributes:
      status: in a word, see `Progress`.
      message: in words: why it paused, what failed; or empty.
      goal: the step at which training ends, or None.
      to_blame: the last step that brought a value which is not finite, and its branch; or None.
      keeps: saves states in the moments of a training, or None.
    """

    def __init__(self, engine: Engine, name: str, eval_data: Any, *, check_finite: bool):
        self.status, self.message = "ready", ""
        self.goal: int | None = None
        self.keeps: Keeps | None = None
        self._engine = engine
        self._eval_data = eval_data
        self._check_finite = check_finite
        self._serial = Serial(f"toolshed: {name}", stop=self.wish_stop)
        self._training: Training | None = None  # the newest one
        self._changing = threading.RLock()  # for the moments in which a training begins or ends
        self._conditions: tuple[Condition | None, Sequence[Watch]] = (None, ())
        self._error: BaseException | None = None
        self.to_blame: tuple[int, str] | None = None
        self._inquest: Inquest | None = None  # into the step to blame
        engine.found = self._found_nonfinite
        engine.publisher.lost = self._lost_rows

    @property
    def has_conditions(self) -> bool:
        """Whether functions decide when the training ends."""
        return self._conditions != (None, ())

    @property
    def under_way(self) -> Training | None:
        """The training, unless it is over."""
        training = self._training
        return None if training is None or training.over.is_set() else training

    def say(self, status: str | None, message: str = "") -> None:
        """Sets the status, None for the one that it has, and tells it."""
        with self._changing:
            status = self.status if status is None else status
            self.status, self.message = status, message
            words = f"{status}: {message}" if message else status
            self._engine.tell("status", words, status=status)

    def refuse(self, error: Exception) -> None:
        """Tells what could not be done, where nobody waits who could be told by raising it."""
        words = one_line(error)
        self.say(None, words)
        self._engine.tell("note", words)

    # --- training -----------------------------------------------------------------------------------

    def check_rests(self) -> None:
        """Checks that no training is under way.

        Raises:
          RunError: one is.
        """
        if self.under_way is not None:
            raise RunError("This run trains already. run.pause() or run.wait() first.")

    def begin(self, steps: int | None, until: Condition | None, watches: Sequence[Watch]) -> None:
        """Has the thread train."""
        with self._changing:
            self.check_rests()
            goal = None if steps is None else self._engine.step + steps
            training = Training(
                self._engine,
                goal,
                until,
                watches,
                self._eval_data,
                serve=self._serial.serve,
                is_waiting=self._serial.has_jobs,
                keep=None if self.keeps is None else self.keeps.after_step,
            )
            self.goal, self._conditions, self._error = goal, (until, watches), None
            self.say("training")
            self._serial.put(lambda: self._train(training))
            self._training = training

    def pause(self) -> None:
        """Has the training pause after the step that is under way. Returns at once."""
        with self._changing:
            training = self.under_way
            if training is not None and training.wish is None:
                training.wish = "pause"
                self.say("pausing")

    def resume(self) -> None:
        """Goes on to the goal that the training had when it was paused.

        Raises:
          RunError: it trains, has reached its goal, or nothing was paused.
        """
        with self._changing:
            training = self.under_way
            if training is not None and training.wish == "pause" and self._error is None:
                training.wish = None  # it has not paused yet
                self.say("training")
                return
            if training is None and self.status not in ("paused", "failed"):
                raise RunError(f"Nothing is paused: the run is {self.status}. run.train(steps) trains on.")
            remaining = None if self.goal is None else self.goal - self._engine.step
            if remaining is not None and remaining <= 0:
                raise RunError(f"The goal, step {self.goal:,}, is reached. run.train(steps) goes on.")
            self.begin(remaining, *self._conditions)

    def stop(self) -> None:
        """Ends the training after the step that is under way; its goal is given up. Returns at once."""
        with self._changing:
            self.wish_stop()
            if self.under_way is None and self.status in ("paused", "failed"):
                self._give_up()
                self.say("stopped")

    def wish_stop(self) -> None:
        """Has the training stop after the step that is under way. Takes no lock."""
        training, inquest = self.under_way, self._inquest
        if training is not None:
            training.wish = "stop"
        if inquest is not None:
            inquest.wanted = False

    def check_can_wait(self) -> None:
        """Checks that the end of a training can be waited for here.

        Raises:
          RunError: this is the thread that trains.
        """
        if self._serial.is_here():
            raise RunError("The training cannot wait for its own end. Call run.wait() from a cell.")

    def wait(self) -> None:
        """Returns when no training is under way, and no autopsy of what stopped it.

        Raises:
          Exception: what stopped the training, once.
          RunError: it is called by the training itself.
        """
        training = self.under_way
        if training is not None:
            self.check_can_wait()
            self._wait_until(training.over)
        found = self.autopsy() if isinstance(self._error, NonFiniteError) else None
        self._engine.publisher.finish(told=True)
        error, self._error = self._error, None
        if error is not None:
            if found is not None:
                error.add_note(repr(found))
            raise error

    def autopsy(self) -> Autopsy | None:
        """What was found out about the step to blame, once it is; None where the search was given up."""
        inquest = self._inquest
        if inquest is None:
            return None
        if not self._serial.is_here():
            self._wait_until(inquest.over)
        return inquest.found

    def _train(self, training: Training) -> None:
        self._training = training  # Ctrl-C may have kept `begin` from it
        ending = Ending("failed")
        try:
            if self.keeps is not None:
                self.keeps.at_start()
            while True:
                ending = training.run()
                self._engine.publisher.finish()  # the last rows may hold a loss that is not finite
                if ending.error is None and training.lost is not None:
                    ending = failure(self._engine, training.lost)
                if ending.error is None and self._error is None and self._check_finite:
                    self._check_last_update()
                went_back = isinstance(self._error, NonFiniteError) and self._back_to_finite(self._error)
                if ending.error is not None and place.is_watched():
                    traceback.print_exception(ending.error)
                with self._changing:
                    if ending.status == "paused" and training.wish is None and self._error is None:
                        continue  # resumed before it had paused
                    self._end(ending)
                    if self.keeps is not None:
                        self.keeps.at_rest()
                    if went_back:
                        self._begin_inquest()
                    training.over.set()
                    return
        finally:
            training.over.set()

    def _end(self, ending: Ending) -> None:
        if ending.error is not None:
            self._error = ending.error
        elif self._error is not None:
            ending = Ending("failed", one_line(self._error))
        if ending.status == "stopped":
            self._give_up()
        self.say(ending.status, ending.message)

    def _give_up(self) -> None:
        self.goal, self._conditions = None, (None, ())

    def _found_nonfinite(self, step: int, loss: float) -> None:
        """Called on the publishing thread."""
        training = self.under_way
        if not self._check_finite or (training is not None and self._error is not None):
            return
        if training is not None:
            self._error = NonFiniteError(
                f"The loss of step {step:,} is {loss}. run.goto({step - 1}) goes back to before it, and"
                f" run.explain({step}) shows what that step knew. Run(check_finite=False) trains on.",
                step=step,
            )
            training.wish = training.wish or "pause"
        words = f"the loss of step {step:,} is {loss}"
        publisher = self._engine.publisher
        branch = publisher.history.branch
        publisher.event("nonfinite", step, branch, words, name="train/loss", value=str(loss))

    def _check_last_update(self) -> None:
        """Finds what is not finite after the last step: no loss has told of it yet."""
        step, bad = self._engine.step, bad_now(self._engine)
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            words = f"the update of step {step:,} is not finite in {bad[0]}{more}"
            self._error = NonFiniteError(f"T{words[1:]}.", step=step)
            self._engine.tell("nonfinite", words, name="train/loss", value=bad[0])

    def _back_to_finite(self, error: NonFiniteError) -> bool:
        """Goes back to before the step that brought a value that is not finite, where the data allows.

        Returns:
          Whether it did.
        """
        engine, step = self._engine, error.step
        if step is None or not engine.feed.goes_back:
            return False
        try:
            branch, good = engine.timeline.current, last_finite(engine, step)
            engine.goto(good)
        except Exception as problem:
            engine.tell("note", f"could not go back to a finite state: {one_line(problem)}")
            return False
        self.to_blame, self._inquest = (good + 1, branch), None
        what = "" if good + 1 == step else f" It comes from step {good + 1:,}, whose update is not finite."
        first = str(error).split(". ")[0].removesuffix(".")
        self._error = NonFiniteError(
            f"{first}.{what} The run went back to step {good:,}. run.autopsy() tells"
            f" which operation it was, and run.explain({good + 1}) what that step knew."
            " Run(check_finite=False) trains on.",
            step=good + 1,
        )
        return True

    def _begin_inquest(self) -> None:
        """Has the step to blame looked into, after all that was asked for before."""
        assert self.to_blame is not None
        inquest = Inquest(
            self._engine,
            self.to_blame[1],
            serve=self._serial.serve,
            is_waiting=self._serial.has_jobs,
            rests=lambda: self.status == "failed",
        )
        with contextlib.suppress(RuntimeError):  # the interpreter is about to end
            self._serial.put(inquest.run)
            self._inquest = inquest

    def _lost_rows(self, error: Exception) -> None:
        """The device failed in a step. Called on the publishing thread."""
        training = self.under_way
        if training is not None:
            training.lost = training.lost or error
            training.wish = training.wish or "pause"
        else:
            self._serial.put(lambda: failure(self._engine, error))

    # --- asking -------------------------------------------------------------------------------------

    def ask(self, fn: Callable[[], Any], *, moves: bool = False) -> Any:
        """``fn()`` in the run's thread, between two steps; ``moves`` if it needs the data or the state."""
        if self._serial.is_here():
            self._check_between_steps(moves)
            return fn()
        job = self._serial.put(fn)
        self._wait_until(job.done)
        return job.result()

    def ask_at_rest(self, fn: Callable[[], Any]) -> Any:
        """``fn()`` in the run's thread, with a training in the background paused first."""
        if self._serial.is_here():
            self._check_between_steps(True)
            return fn()
        training = self.under_way
        if training is not None:
            self.pause()
            self._wait_until(training.over)
        return self.ask(fn)

    def ask_later(self, fn: Callable[[], Any], *, at_rest: bool) -> None:
        """``fn()`` in the run's thread as soon as it can be; returns at once, errors are told."""

        def attempt() -> None:
            try:
                fn()
            except Exception as error:
                self.refuse(error)
            else:
                self.say(None, "" if at_rest else self.message)

        if at_rest:
            self.pause()
        self._serial.put(attempt)

    def _check_between_steps(self, moves: bool) -> None:
        """The run's own thread may come here out of the data, the loss function or an evaluation."""
        within = self._engine.within
        if within and (moves or within == "a step"):
            raise RunError(
                f"This was called from inside {within}, which the run is in the middle of. Call it from a"
                " cell, from until=… or from a watch."
            )

    def _wait_until(self, done: Latch) -> None:
        """Waits. Ctrl-C has what is done meanwhile end after the present step, and is raised then."""
        try:
            done.wait()
        except KeyboardInterrupt:
            self._engine.halts = True
            try:
                self.pause()
                wait_whatever_comes(done)
            finally:
                self._engine.halts = False
            self._engine.tell("interrupted", "interrupted")
            raise
