"""Run: a training that goes on while you look at it, and can be stepped, steered and rewound."""

from __future__ import annotations

import datetime
import math
import sqlite3
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from toolshed import paths
from toolshed.checkpoints import Repository, Saving
from toolshed.checkpoints.labels import check_dict
from toolshed.errors import NonFiniteError, RunError, StoreError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.metrics import Collection
from toolshed.run import place
from toolshed.run.durable import Durable, describe, new_folder
from toolshed.run.edits import ModelChange
from toolshed.run.engine import Engine
from toolshed.run.events import Event, Listener, one_line, warn_of
from toolshed.run.history import History
from toolshed.run.logged import check_logged
from toolshed.run.parts import parts_of
from toolshed.run.progress import Progress
from toolshed.run.publisher import Publisher
from toolshed.run.saves import check_every
from toolshed.run.serial import Serial, wait_whatever_comes
from toolshed.run.shown import show_in_notebook, shown_in_terminal
from toolshed.run.timeline import Timeline
from toolshed.run.training import Ending, Training, failure, start_watches
from toolshed.run.until import Condition
from toolshed.state import TrainState
from toolshed.store import DEFAULT
from toolshed.training import Context, Trainer
from toolshed.training.watches import Watch

_MEGABYTE = 2**20
_numbers = iter(range(1, 1_000_000))


class Run:
    """A training, live: the one thing that changes.

    It owns a state, the place in the data, the timeline and the history. A thread of its own moves them;
    every method here asks that thread and may be called from any cell at any time. A step is done or not:
    whatever interrupts, `state` is the state after the last completed step. Nobody who looks keeps
    training waiting for longer than a step.

    Args:
      *what: ``(trainer, state, data)``; ``(trainer, data)``, which makes the state from ``seed``; or
        ``(model, optimizer, loss_fn, data)``. The data are batches: a stream, a loader, a list. They belong
        to the run from then on, for it goes back and forth in them.
      eval_data: evaluated every ``eval_every`` steps.
      eval_every: a window, in steps: metrics gather over it, are written down and begin anew, ``until``
        and watches are asked. By default an epoch, or 100 steps where that is not known or shorter than 20.
      metrics: of the trainer that is made of a model.
      gradient_strategy: likewise.
      seed: of the state that is made here.
      name: what the run is called.
      norms_every: in every how many steps the norms of gradients and updates are recorded, as they read
        every gradient; None for 10, or 50 where a model is very small and its steps very fast; 0 for never.
      snapshot_every: steps between two snapshots; None for about one a second.
      snapshot_bytes: memory for snapshots on the device. On an accelerator older ones move to the host, up
        to four times as many; then they are thinned out.
      check_finite: whether to stop when a loss is NaN or infinite.
      store: a directory in which the run gets one of its own, where every value and event is written to
        while it goes on, and checkpoints are kept; `toolshed.attach` goes on from there. None for nowhere.
      checkpoint_every: steps (or a `datetime.timedelta`) between two checkpoints; None for about one a
        minute, 0 for only those that are asked for. The first state and the last are saved in any case. One
        that is due while another is being written is left out.
      config: what to remember of how the run was made, as JSON can hold it.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x, y):
      ...     preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      ...     return jnp.mean((preds - y) ** 2), state, {"preds": preds}
      >>> mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 8, 1])
      >>> data = [{"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}]
      >>> run = toolshed.Run(mlp, optax.adam(1e-2), loss_fn, data)
      >>> context = run.step()
      >>> run.train(steps=9, wait=True)
      >>> int(run.state.step), run.back(4), int(run.state.step)
      (10, None, 6)
    """

    def __init__(
        self,
        *what: Any,
        eval_data: Any = None,
        eval_every: int | None = None,
        metrics: Collection | None = None,
        gradient_strategy: GradientStrategy = backprop,
        seed: int = 0,
        name: str | None = None,
        norms_every: int | None = None,
        snapshot_every: int | None = None,
        snapshot_bytes: int = 256 * _MEGABYTE,
        check_finite: bool = True,
        store: str | PathLike[str] | None = None,
        checkpoint_every: int | datetime.timedelta | None = None,
        config: Mapping[str, Any] | None = None,
    ):
        every, config = check_every(checkpoint_every), check_dict("config", config)
        trainer, state, data = parts_of(what, metrics, gradient_strategy, seed)
        for option, number in (("eval_every", eval_every), ("snapshot_every", snapshot_every)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise RunError(f"{option} is {number!r}; expected a whole number from 1, or None.")
        if norms_every is not None and (not isinstance(norms_every, int) or norms_every < 0):
            raise RunError(f"norms_every is {norms_every!r}; expected a whole number from 0, or None.")
        if not isinstance(snapshot_bytes, int) or snapshot_bytes < 0:
            raise RunError(f"snapshot_bytes is {snapshot_bytes!r}; expected a whole number of bytes.")
        state.check_alive()
        folder = None if store is None else new_folder(store, name)
        self.name = name or (f"run {next(_numbers)}" if folder is None else folder.name)
        self._publisher = Publisher()
        self._engine = Engine(
            trainer,
            state,
            data,
            self._publisher,
            window=eval_every,
            norms_every=norms_every,
            snapshot_every=snapshot_every,
            device_budget=snapshot_bytes,
            host_budget=4 * snapshot_bytes,
        )
        self._engine.found = self._found_nonfinite
        self._publisher.lost = self._lost_rows
        self._eval_data = eval_data
        self._check_finite = check_finite
        self._serial = Serial(f"toolshed: {self.name}", stop=self._wish_stop)
        self._training: Training | None = None  # the newest one
        self._changing = threading.RLock()  # for the moments in which a training begins or ends
        self._status, self._message = "ready", ""
        self._goal: int | None = None
        self._conditions: tuple[Condition | None, Sequence[Watch]] = (None, ())
        self._error: BaseException | None = None
        self._context: tuple[int, str, Context] | None = None
        self._read_hyperparameters()
        self._durable: Durable | None = None
        if folder is not None:
            options = {"norms_every": norms_every, "snapshot_every": snapshot_every}
            options |= {"snapshot_bytes": snapshot_bytes, "check_finite": check_finite}
            made = describe(self, data, eval_data, seed, options) | {"config": config}
            self._keep(Durable(self, folder, made, every))

    # --- what can be read at any time ---------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """The optimiser, loss function and metrics."""
        return self._engine.trainer

    @property
    def state(self) -> TrainState:
        """The state after the last completed step, in memory of its own: it stays valid."""
        return self._ask(self._engine.state)

    @property
    def context(self) -> Context:
        """Everything that the last completed step knew.

        Where that was not a step by hand, it is computed again; in the middle of training, too.

        Raises:
          RunError: no step was made yet.
        """
        return self._ask(self._last_context, moves=True)

    @property
    def history(self) -> History:
        """All values so far, by name, step and branch."""
        return self._publisher.history

    @property
    def timeline(self) -> Timeline:
        """Branches and snapshots: to where one can go back, and how much memory that takes."""
        return self._engine.timeline

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened: edits, branches, evaluations, errors."""
        return self._publisher.listeners.kept

    @property
    def data_position(self) -> Any:
        """Where the next batch is, as `toolshed.data.Stream.state` gives it."""
        return self._ask(lambda: self._engine.feed.position)

    @property
    def status(self) -> str:
        """In a word: see `Progress`."""
        training = self._under_way
        return "evaluating" if training is not None and training.is_evaluating else self._status

    @property
    def hyperparameters(self) -> dict[str, float]:
        """What `edit` can set, with the values that were last seen."""
        values = dict(self._hyperparameters)
        recorded = self._last("optim/learning_rate")
        if recorded is not None and "learning_rate" in values and recorded[0] > self._read_at:
            values["learning_rate"] = recorded[1]  # a watch may have changed it
        return values

    @property
    def progress(self) -> Progress:
        """Where the run stands, in numbers. Waits for nothing."""
        engine, publisher = self._engine, self._publisher
        length = engine.feed.length
        speed = publisher.steps_per_second
        goal = self._goal
        return Progress(
            status=self.status,
            message=self._message,
            step=engine.step,
            goal=goal,
            epoch=engine.step / length if length else None,
            elapsed=engine.elapsed,
            remaining=max(goal - engine.step, 0) / speed if goal is not None and speed else None,
            steps_per_second=speed,
            examples_per_second=publisher.examples_per_second,
            device_bytes=publisher.device_bytes,
            device_limit=publisher.device_limit,
            branch=engine.timeline.current,
            snapshot_bytes=engine.timeline.nbytes,
            snapshot_budget=engine.timeline.device_budget + engine.timeline.host_budget,
        )

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Has ``listener(event)`` called with each event, on the publishing thread.

        Returns:
          A function that ends it. A listener that raises is shown once and called no more.
        """
        return self._publisher.listeners.add(listener)

    # --- forwards -----------------------------------------------------------------------------------

    def step(self, n: int = 1) -> Context:
        """Makes ``n`` steps here and now; gives everything that the last one knew.

        A training in the background is paused first.

        Raises:
          RunError: ``n`` is no whole number from 1.
          Exception: what a loss function or the data raised; the steps before it are done.
        """
        _check_count("n", n, 1)
        return self._interrupting(lambda: self._steps_by_hand(n))

    def train(
        self,
        steps: int | None = None,
        *,
        until: Condition | None = None,
        watch: Watch | Sequence[Watch] = (),
        wait: bool | None = None,
    ) -> None:
        """Trains in the background, and leaves the kernel free.

        Args:
          steps: how many more; None for without end, or until the condition holds.
          until: asked at the end of each window as ``until(step, values)``, with the newest values by
            name; see `toolshed.until`.
          watch: as in `Trainer.fit`: `EarlyStopping`, `ReduceOnPlateau`, `KeepBest` or functions.
          wait: return only at the end. By default only where nobody could use the kernel meanwhile: in a
            terminal, under nbconvert or papermill.

        Raises:
          RunError: it trains already, or would never return.
          Exception: with ``wait``, what stopped the training, as `wait` does.
        """
        if steps is not None:
            _check_count("steps", steps, 0)
        waits = not place.is_watched() if wait is None else wait
        if waits and steps is None and until is None and not watch:
            raise RunError(
                "Training without an end would never return here, where nobody could stop it. Say for how"
                " long: train(steps=…) or train(until=…)."
            )
        watches = _checked_watches(watch)
        if until is not None and not callable(until):
            raise RunError(
                f"until is {paths.describe(until)}; expected a function of the step and the values, such as"
                " toolshed.until.metric('eval/accuracy', above=0.97)."
            )
        self._check_rests()
        if watches:
            self._ask(lambda: start_watches(watches, self._engine.live_state(), self._eval_data))
        self._begin(steps, until, watches)
        if not waits:
            return
        if not place.in_kernel():
            with shown_in_terminal(self):
                self.wait()
        else:
            try:
                self.wait()
            finally:
                if not place.is_watched():
                    show_in_notebook(self)  # a picture in an earlier cell cannot be changed there

    def pause(self) -> None:
        """Has the training pause after the step that is under way. Returns at once."""
        with self._changing:
            training = self._under_way
            if training is not None and training.wish is None:
                training.wish = "pause"
                self._say("pausing")

    def resume(self) -> None:
        """Goes on to the goal that the training had when it was paused, with its conditions and watches.

        Raises:
          RunError: it trains, has reached its goal, or nothing was paused.
        """
        with self._changing:
            training = self._under_way
            if training is not None and training.wish == "pause" and self._error is None:
                training.wish = None  # it has not paused yet
                self._say("training")
                return
            if training is None and self._status not in ("paused", "failed"):
                raise RunError(f"Nothing is paused: the run is {self._status}. run.train(steps) trains on.")
            remaining = None if self._goal is None else self._goal - self._engine.step
            if remaining is not None and remaining <= 0:
                raise RunError(f"The goal, step {self._goal:,}, is reached. run.train(steps) goes on.")
            self._begin(remaining, *self._conditions)

    def stop(self) -> None:
        """Ends the training after the step that is under way; its goal is given up. Returns at once."""
        with self._changing:
            self._wish_stop()
            if self._under_way is None and self._status in ("paused", "failed"):
                self._give_up()
                self._say("stopped")

    def wait(self) -> None:
        """Returns when no training is under way.

        Ctrl-C pauses the training after the step that is under way, and is raised then.

        Raises:
          Exception: what stopped the training, once.
          RunError: it is called by the training itself, which would wait for ever.
        """
        training = self._under_way
        if training is not None:
            if self._serial.is_here():
                raise RunError("The training cannot wait for its own end. Call run.wait() from a cell.")
            self._wait_until(training.over)
        self._publisher.finish(told=True)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def call(self, fn: Callable[[TrainState], Any]) -> Any:
        """``fn(state)`` of the live state between two steps; gives what it gives.

        The state's memory is taken by the next step: look at it, and keep only what you computed.
        """
        return self._ask(lambda: fn(self._engine.live_state()))

    def log(self, name: str, value: Any) -> None:
        """Adds a value of your own to the history, at the present step.

        Args:
          name: ``split/name``.
          value: a number; a device scalar is waited for in the background.

        Raises:
          RunError: it is no number, or the run writes values of this name itself.
        """
        check_logged(name, value, self._engine.own_names)
        self._publisher.values(self._engine.step, lambda: {name: value})

    # --- back and forth -----------------------------------------------------------------------------

    def back(self, n: int = 1) -> None:
        """Goes ``n`` steps back. A training in the background is paused first."""
        _check_count("n", n, 1)
        self._interrupting(lambda: self._goto(self._engine.step - n))

    def goto(self, step: int, branch: str | None = None) -> None:
        """Goes to the state at a step that was made, back or forth, bit for bit.

        The nearest snapshot before it is taken, and the steps from there are made again. Training on from
        an earlier step begins a branch; what was made before stays.

        Args:
          step: number of steps done.
          branch: on the way to which branch; None for the present one.

        Raises:
          RunError: there is no such step.
          DataError: the data can be read only forwards.
        """
        _check_count("step", step, 0)
        self._interrupting(lambda: self._goto(step, branch))

    def fork(self, name: str | None = None) -> None:
        """Begins a branch at the present step, and goes on there."""

        def begin() -> None:
            self._engine.fork(name)
            self._save_with("at_rest")

        self._interrupting(begin)

    def explain(self, step: int, branch: str | None = None) -> Context:
        """Everything that the step which led to ``step`` knew, computed again. Moves nothing."""
        _check_count("step", step, 1)
        return self._ask(lambda: self._engine.explain(step, branch), moves=True)

    # --- edits --------------------------------------------------------------------------------------

    def edit(self, **values: float) -> None:
        """Sets hyperparameters between two steps; training goes on, and nothing is compiled again.

        What can be set: what `optax.inject_hyperparams` made an array of, and the scalars of a loss
        function's state where that is a dict. Each edit is an event, and is made again by `goto`.

        Raises:
          RunError: there is none of that name; the nearest ones are named.
        """
        self._ask(lambda: self._edit(values), moves=True)

    def edit_model(self, fn: Callable[[Any], Any]) -> ModelChange:
        """Changes the model: ``fn(model)`` gives the new one. A training in the background is paused first.

        Parameters have the values of the new model; the optimiser's values stay wherever their path, shape
        and dtype still fit.

        Returns:
          What was kept, dropped and new, by path.
        """
        return self._interrupting(lambda: self._edit_model(fn))

    # --- on the disk --------------------------------------------------------------------------------

    @property
    def can_save(self) -> bool:
        """Whether the run has a store."""
        return self._durable is not None

    @property
    def folder(self) -> Path | None:
        """The run's directory; None without a store."""
        return None if self._durable is None else self._durable.folder

    @property
    def checkpoints(self) -> Repository:
        """The run's checkpoints.

        Raises:
          RunError: it has no store.
        """
        return self._stored.repository

    def save(self, tag: str | None = None, *, wait: bool = False) -> Saving:
        """Saves the present state as a checkpoint that stays; training goes on meanwhile.

        Args:
          tag: a word to find it by.
          wait: come back when it is on the disk, and raise what goes wrong.

        Raises:
          RunError: the run has no store.
          CheckpointError: the tag is no word.
          SaveError: with ``wait``: it could not be written.
        """
        saving = self._ask(lambda: self._save(tag), moves=True)
        if wait:
            saving.wait()
        return saving

    @property
    def _stored(self) -> Durable:
        if self._durable is None:
            raise RunError(
                f"This run is kept nowhere, so it has no checkpoints. Make it with Run(…, store={DEFAULT!r})."
            )
        return self._durable

    def _save(self, tag: str | None) -> Saving:
        """In the run's own thread."""
        step, branch = self._engine.step, self._engine.timeline.current
        self._check_between_steps(True)

        def told(saving: Saving) -> None:
            if saving.error is not None:
                self._say(self._status, one_line(saving.error))
                return
            words = f"saved step {step:,}" + (f" as {tag!r}" if tag else "")
            self._publisher.event("saved", step, branch, words, tag=tag)
            self._say(self._status, words)

        saving = self._stored.save(tag, told)
        self._say(self._status, f"saving step {step:,}")
        return saving

    def _save_with(self, moment: str) -> None:
        """What is saved without being asked for. A failure leaves the training alone."""
        if self._durable is not None:
            try:
                getattr(self._durable, moment)()
            except Exception as error:
                warn_of(error, "A checkpoint could not be made.")

    def _keep(self, durable: Durable) -> None:
        try:
            durable.begin()
        except (OSError, sqlite3.Error) as error:
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"No run can be kept in {durable.folder}: {reason}.") from error
        self._durable = durable

    # --- buttons ------------------------------------------------------------------------------------

    def request(self, action: str, **arguments: Any) -> None:
        """What a button does: asks for an action by its name and returns at once; errors become events."""
        actions: Mapping[str, Callable[[], Any]] = {
            "train": lambda: self.train(arguments.get("steps"), wait=False),
            "pause": self.pause,
            "resume": self.resume,
            "stop": self.stop,
            "step": lambda: self._later(lambda: self._steps_by_hand(_count(arguments, "n", 1))),
            "back": lambda: self._later(lambda: self._goto(self._engine.step - _count(arguments, "n", 1))),
            "goto": lambda: self._later(lambda: self._goto(_count(arguments, "step", 0))),
            "edit": lambda: self._later(lambda: self._edit(arguments), pausing=False),
            "save": lambda: self._serial.put(lambda: self._try_to_save(arguments.get("tag"))),
        }
        try:
            if action not in actions:
                raise RunError(f"A run cannot {action!r}; it can {', '.join(actions)}.")
            actions[action]()
        except Exception as error:
            self._refuse(error)

    def _later(self, fn: Callable[[], Any], *, pausing: bool = True) -> None:
        def attempt() -> None:
            try:
                fn()
            except Exception as error:
                self._refuse(error)
            else:
                self._say(self._status, "" if pausing else self._message)

        if pausing:
            self.pause()
        self._serial.put(attempt)

    def _try_to_save(self, tag: str | None) -> None:
        try:
            self._save(tag)
        except Exception as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        words = one_line(error)
        self._say(self._status, words)
        self._engine.tell("note", words)

    # --- in the run's own thread --------------------------------------------------------------------

    @property
    def _under_way(self) -> Training | None:
        """The training, unless it is over."""
        training = self._training
        return None if training is None or training.over.is_set() else training

    def _check_rests(self) -> None:
        if self._under_way is not None:
            raise RunError("This run trains already. run.pause() or run.wait() first.")

    def _begin(self, steps: int | None, until: Condition | None, watches: Sequence[Watch]) -> None:
        """Has the run's thread train."""
        with self._changing:
            self._check_rests()
            goal = None if steps is None else self._engine.step + steps
            training = Training(
                self._engine,
                goal,
                until,
                watches,
                self._eval_data,
                serve=self._serial.serve,
                is_waiting=self._serial.has_jobs,
                keep=None if self._durable is None else self._durable.after_step,
            )
            self._goal, self._conditions, self._error = goal, (until, watches), None
            self._say("training")
            self._serial.put(lambda: self._train(training))
            self._training = training

    def _train(self, training: Training) -> None:
        self._training = training  # Ctrl-C may have kept `_begin` from it
        ending = Ending("failed")
        try:
            self._save_with("at_start")
            while True:
                ending = training.run()
                self._publisher.finish()  # the last rows may hold a loss that is not finite
                if ending.error is None and training.lost is not None:
                    ending = failure(self._engine, training.lost)
                if ending.error is not None and place.is_watched():
                    traceback.print_exception(ending.error)
                with self._changing:
                    if ending.status == "paused" and training.wish is None:
                        continue  # resumed before it had paused
                    self._end(ending)
                    self._save_with("at_rest")
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
        self._say(ending.status, ending.message)

    def _give_up(self) -> None:
        self._goal, self._conditions = None, (None, ())

    def _steps_by_hand(self, n: int) -> Context:
        engine = self._engine
        self._save_with("at_start")
        try:
            last = engine.step + n - 1
            while engine.step < last:
                engine.advance(last)
                engine.end_window()
                self._save_with("after_step")
                engine.check_halt()
            context = engine.step_by_hand()
            engine.end_window()
            self._save_with("after_step")
        except BaseException:
            engine.recover()
            raise
        finally:
            engine.flush()
        self._context = (engine.step, engine.timeline.current, context)
        if self._status in ("ready", "finished", "stopped", "failed"):
            self._status = "paused"
        self._say(self._status, "")
        return context

    def _last_context(self) -> Context:
        engine = self._engine
        here = (engine.step, engine.timeline.current)
        if self._context is None or self._context[:2] != here:
            self._context = (*here, engine.explain(engine.step))
        return self._context[2]

    def _goto(self, step: int, branch: str | None = None) -> None:
        self._engine.goto(step, branch)
        self._read_hyperparameters()

    def _edit(self, values: Mapping[str, Any]) -> None:
        self._engine.edit(values)
        self._read_hyperparameters()
        self._say(self._status, self._message)

    def _edit_model(self, fn: Callable[[Any], Any]) -> ModelChange:
        change = self._engine.edit_model(fn)
        self._read_hyperparameters()
        self._save_with("at_rest")
        return change

    def _read_hyperparameters(self) -> None:
        """Waits for the device."""
        self._hyperparameters, self._read_at = self._engine.hyperparameters(), self._engine.step

    def _found_nonfinite(self, step: int, loss: float) -> None:
        """Called on the publishing thread."""
        training = self._under_way
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
        self._publisher.event(
            "nonfinite", step, self.history.branch, words, name="train/loss", value=str(loss)
        )

    def _lost_rows(self, error: Exception) -> None:
        """The device failed in a step. Called on the publishing thread."""
        training = self._under_way
        if training is not None:
            training.lost = training.lost or error
            training.wish = training.wish or "pause"
        else:
            self._serial.put(lambda: failure(self._engine, error))

    def _say(self, status: str, message: str = "") -> None:
        with self._changing:
            self._status, self._message = status, message
            words = f"{status}: {message}" if message else status
            self._engine.tell("status", words, status=status)

    def _wish_stop(self) -> None:
        training = self._under_way
        if training is not None:
            training.wish = "stop"

    # --- asking the run's thread --------------------------------------------------------------------

    def _ask(self, fn: Callable[[], Any], *, moves: bool = False) -> Any:
        """``fn()`` in the run's thread, between two steps; ``moves`` if it needs the data or the state."""
        if self._serial.is_here():
            self._check_between_steps(moves)
            return fn()
        job = self._serial.put(fn)
        self._wait_until(job.done)
        return job.result()

    def _interrupting(self, fn: Callable[[], Any]) -> Any:
        """``fn()`` in the run's thread, with a training in the background paused first."""
        if self._serial.is_here():
            self._check_between_steps(True)
            return fn()
        training = self._under_way
        if training is not None:
            self.pause()
            self._wait_until(training.over)
        return self._ask(fn)

    def _check_between_steps(self, moves: bool) -> None:
        """The run's own thread may come here out of the data, the loss function or an evaluation."""
        within = self._engine.within
        if within and (moves or within == "a step"):
            raise RunError(
                f"This was called from inside {within}, which the run is in the middle of. Call it from a"
                " cell, from until=… or from a watch."
            )

    def _wait_until(self, done: threading.Event) -> None:
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

    def _ipython_display_(self) -> None:
        show_in_notebook(self)

    def _last(self, name: str) -> tuple[int, float] | None:
        return self.history.last(name) if name in self.history.names else None

    def __repr__(self) -> str:
        progress = self.progress
        goal = f" of {progress.goal:,}" if progress.goal is not None else ""
        loss = self._last("train/loss")
        value = f", loss {loss[1]:.4g}" if loss is not None and math.isfinite(loss[1]) else ""
        return f"Run({self.name!r}: {progress.status}, step {progress.step:,}{goal}{value})"


def _check_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RunError(f"{name} is {value!r}; expected a whole number from {least}.")


def _checked_watches(watch: Any) -> tuple[Watch, ...]:
    watches = tuple(watch) if isinstance(watch, Sequence) else (watch,)
    for one in watches:
        if not callable(one):
            raise RunError(f"Expected a watch to be a function, got {paths.describe(one)}.")
    return watches


def _count(arguments: Mapping[str, Any], name: str, least: int) -> int:
    """A whole number among the arguments of a button; 1 where it is not given."""
    value = arguments.get(name, 1)
    _check_count(name, value, least)
    return value
