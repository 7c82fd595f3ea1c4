"""Run: a training that goes on while you look at it, and can be stepped, steered and rewound."""

from __future__ import annotations

import datetime
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from toolshed import paths
from toolshed.checkpoints import Repository, Saving
from toolshed.checkpoints.labels import check_dict
from toolshed.errors import RunError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.insight import Autopsy, first_nonfinite
from toolshed.metrics import Collection
from toolshed.run import place
from toolshed.run.buttons import press
from toolshed.run.control import Control
from toolshed.run.durable import Durable, describe, new_folder
from toolshed.run.edits import ModelChange
from toolshed.run.engine import Engine
from toolshed.run.events import Event, Listener
from toolshed.run.following import Follower
from toolshed.run.history import History
from toolshed.run.leaf_history import LeafHistory
from toolshed.run.logged import check_logged
from toolshed.run.parts import (
    check_eval_data,
    check_name,
    parts_of,
    whole_number,
    whole_number_or_none,
)
from toolshed.run.progress import Progress
from toolshed.run.publisher import Publisher
from toolshed.run.saves import check_every
from toolshed.run.shown import show_in_notebook, shown_in_terminal
from toolshed.run.timeline import Timeline
from toolshed.run.training import start_watches
from toolshed.run.until import Condition
from toolshed.run.watch import LeafWatch
from toolshed.sinks import Sink
from toolshed.state import TrainState
from toolshed.training import Context, Trainer
from toolshed.training.watches import Watch
from toolshed.views import View
from toolshed.views.overlays import overlay

_MEGABYTE = 2**20
_numbers = iter(range(1, 1_000_000))


class Run:
    """A training, live: the one thing that changes.

    It owns a state, the place in the data, the timeline and the history. A thread of its own moves them;
    every method here asks that thread and may be called from any cell at any time. A step is done or not:
    whatever interrupts, `state` is the state after the last completed step. Nobody who looks keeps
    training waiting for longer than a step. A run that nobody holds any more stops training.

    Args:
      *what: ``(trainer, state, data)``; ``(trainer, data)``, which makes the state from ``seed``; or
        ``(model, optimizer, loss_fn, data)``. The data are batches: a stream, a loader, a list. They are
        read from where they are; a run goes back and forth in them with a position of its own.
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
      check_finite: whether to stop when a loss is NaN or infinite, and to go back to the last state before
        with no such value.
      store: a directory in which the run gets one of its own, where every value and event is written to
        while it goes on, and checkpoints are kept; `toolshed.attach` goes on from there. None for nowhere.
      checkpoint_every: steps (or a `datetime.timedelta`) between two checkpoints; None for about one a
        minute, 0 for only those that are asked for. The first state and the last are saved in any case. One
        that is due while another is being written is left out.
      config: what to remember of how the run was made, as JSON can hold it.
      sinks: other tools that are told of values and events; see `toolshed.sinks`.

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
        sinks: Sequence[Sink] = (),
    ):
        every, config = check_every(checkpoint_every), check_dict("config", config)
        trainer, state, data = parts_of(what, metrics, gradient_strategy, seed)
        snapshot_bytes = whole_number("snapshot_bytes", snapshot_bytes, 0)
        check_eval_data(eval_data)
        state.check_alive()
        if name is not None:
            check_name("A run", name)
        folder = None if store is None else new_folder(store, name or "run")
        self.name = name or (f"run {next(_numbers)}" if folder is None else folder.name)
        self._publisher = Publisher()
        self._engine = Engine(
            trainer,
            state,
            data,
            self._publisher,
            window=whole_number_or_none("eval_every", eval_every, 1),
            norms_every=whole_number_or_none("norms_every", norms_every, 0),
            snapshot_every=whole_number_or_none("snapshot_every", snapshot_every, 1),
            device_budget=snapshot_bytes,
            host_budget=4 * snapshot_bytes,
        )
        self._eval_data = eval_data
        self._control = Control(self._engine, self.name, eval_data, check_finite=check_finite)
        weakref.finalize(self, self._control.wish_stop).atexit = False
        self._context: tuple[int, str, Context] | None = None
        made: dict[str, Any] = {}
        if folder is not None or sinks:
            options = {"norms_every": norms_every, "snapshot_every": snapshot_every}
            options |= {"snapshot_bytes": snapshot_bytes, "check_finite": check_finite}
            made = describe(self._engine, data, eval_data, seed, options) | {"config": config}
        self._followers = [Follower(sink, self.name, made, self._publisher) for sink in sinks]
        self._durable: Durable | None = None
        if folder is not None:
            self._keep(Durable(self.name, self._engine, self._control, folder, made, every))

    # --- what can be read at any time ---------------------------------------------------------------

    @property
    def trainer(self) -> Trainer:
        """The optimiser, loss function and metrics."""
        return self._engine.trainer

    @property
    def state(self) -> TrainState:
        """The state after the last completed step, in memory of its own: it stays valid."""
        return self._control.ask(self._engine.state)

    @property
    def context(self) -> Context:
        """Everything that the last completed step knew.

        Where that was not a step by hand, it is computed again; in the middle of training, too.

        Raises:
          RunError: no step was made yet.
        """
        return self._control.ask(self._last_context, moves=True)

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
        return self._control.ask(lambda: self._engine.feed.position)

    @property
    def status(self) -> str:
        """In a word: see `Progress`."""
        training = self._control.under_way
        return "evaluating" if training is not None and training.is_evaluating else self._control.status

    @property
    def hyperparameters(self) -> dict[str, float]:
        """What `edit` can set, with the values that were last seen."""
        read, step = self._engine.hyperparameters
        values = dict(read)
        recorded = self._last("optim/learning_rate")
        if recorded is not None and "learning_rate" in values and step < recorded[0] <= self._engine.step:
            values["learning_rate"] = recorded[1]  # a watch may have changed it
        return values

    @property
    def progress(self) -> Progress:
        """Where the run stands, in numbers. Waits for nothing."""
        engine, publisher = self._engine, self._publisher
        length = engine.feed.length
        speed = publisher.steps_per_second
        goal = self._control.goal
        return Progress(
            status=self.status,
            message=self._message,
            step=engine.step,
            goal=goal,
            epoch=engine.step / length if length else None,
            elapsed=engine.elapsed,
            remaining=(goal - engine.step) / speed
            if goal is not None and engine.step < goal and speed
            else None,
            steps_per_second=speed,
            examples_per_second=publisher.examples_per_second,
            device_bytes=publisher.device_bytes,
            device_limit=publisher.device_limit,
            branch=engine.timeline.current,
            snapshot_bytes=engine.timeline.nbytes,
            snapshot_budget=engine.timeline.budget,
        )

    @property
    def _message(self) -> str:
        """What the run says of itself, and of its disk for as long as that fails."""
        said, trouble = self._control.message, "" if self._durable is None else self._durable.problem
        return trouble if said in trouble else f"{said} · {trouble}" if trouble else said

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Has ``listener(event)`` called with each event, on the publishing thread.

        Returns:
          A function that ends it. A listener that raises is shown once and called no more.
        """
        return self._publisher.listeners.add(listener)

    def show(self, what: str = "params", **options: Any) -> View:
        """The model's own tree with other values in the places of its parameters, and their statistics.

        Args:
          what: ``params``; ``grads`` or ``updates``, of the last step, with update ratios;
            ``opt_state/mu`` and whatever else the optimiser keeps for each parameter; ``activations`` of
            the last step's batch, with dead and saturated units.
          **options: ``select`` and ``worst`` as in `toolshed.show`; ``layers``: whose outputs are
            activations, as in `toolshed.insight.activations`.

        Raises:
          RunError: no step was made yet.
          ToolshedError: there is nothing of that name, or it matches nothing.
        """
        return overlay(self.trainer, self.state, lambda: self.context, what, **options)

    # --- forwards -----------------------------------------------------------------------------------

    def step(self, n: int = 1) -> Context:
        """Makes ``n`` steps here and now; gives everything that the last one knew.

        A training in the background is paused first.

        Raises:
          RunError: ``n`` is no whole number from 1.
          Exception: what a loss function or the data raised; the steps before it are done.
        """
        n = whole_number("n", n, 1)
        return self._control.ask_at_rest(lambda: self._steps_by_hand(n))

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
            steps = whole_number("steps", steps, 0)
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
        self._control.check_rests()
        if waits:
            self._control.check_can_wait()
        if watches:
            self._control.ask(lambda: start_watches(watches, self._engine.live_state(), self._eval_data))
        self._control.begin(steps, until, watches)
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
        self._control.pause()

    def resume(self) -> None:
        """Goes on to the goal that the training had when it was paused, with its conditions and watches.

        Raises:
          RunError: it trains, has reached its goal, or nothing was paused.
        """
        self._control.resume()

    def stop(self) -> None:
        """Ends the training after the step that is under way; its goal is given up. Returns at once."""
        self._control.stop()

    def wait(self) -> None:
        """Returns when no training is under way.

        Ctrl-C pauses the training after the step that is under way, and is raised then.

        Raises:
          Exception: what stopped the training, once.
          RunError: it is called by the training itself, which would wait for ever.
        """
        self._control.wait()

    def call(self, fn: Callable[[TrainState], Any]) -> Any:
        """``fn(state)`` of the live state between two steps; gives what it gives.

        The state's memory is taken by the next step: look at it, and keep only what you computed.
        """
        return self._control.ask(lambda: fn(self._engine.live_state()))

    def log(self, name: str, value: Any) -> None:
        """Adds a value of your own to the history, at the present step.

        Args:
          name: ``split/name``.
          value: a number; a device scalar is waited for in the background.

        Raises:
          RunError: it is no number, or the run writes values of this name itself.
        """
        check_logged(name, value, self._engine.own_names)
        self._publisher.let_catch_up()
        self._publisher.values(self._engine.step, lambda: {name: value})

    def watch(
        self, pattern: str = "grads/**", *, every: int = 50, statistics: Sequence[str] = ("rms", "absmax")
    ) -> LeafHistory:
        """Has statistics of many arrays recorded while the run trains, from the next step on.

        ``run.watch("grads/**")`` takes those of every gradient; `toolshed.views.figures.history_map` draws
        them over time. The steps themselves change in no bit: what is watched is computed beside them,
        gradients and updates with one more pass forward and back in each step that is looked at, which is
        about 2 % of the time where that is one step in 50.

        Args:
          pattern: paths into a Context: ``grads/**``, ``updates/**/weights``, ``params/**``, ``interms/**``.
          every: in every how many steps.
          statistics: what of each array: some of ``rms, norm, mean, std, absmax, zeros, nonfinite``.

        Returns:
          What is seen; it grows while the run trains. Also in `watched`.

        Raises:
          RunError: no array matches, or there is no such statistic.
        """
        watch = LeafWatch(self.trainer, pattern, every, statistics)
        return self._control.ask(lambda: self._engine.watch(watch), moves=True)

    def unwatch(self, pattern: str) -> None:
        """Ends a watch; what it saw stays with whoever holds it."""
        self._control.ask(lambda: self._engine.unwatch(pattern))

    @property
    def watched(self) -> Mapping[str, LeafHistory]:
        """What is being watched, by pattern."""
        found = {name: watch.history for name, watch in self._engine.watches.items()}
        return {name: history for name, history in found.items() if history is not None}

    # --- back and forth -----------------------------------------------------------------------------

    def back(self, n: int = 1) -> None:
        """Goes ``n`` steps back. A training in the background is paused first."""
        n = whole_number("n", n, 1)
        self._control.ask_at_rest(lambda: self._engine.goto(self._engine.step - n))

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
        step = whole_number("step", step, 0)
        self._control.ask_at_rest(lambda: self._engine.goto(step, branch))

    def fork(self, name: str | None = None) -> None:
        """Begins a branch at the present step, and goes on there."""
        self._control.ask_at_rest(lambda: self._kept_after(lambda: self._engine.fork(name)))

    def explain(self, step: int, branch: str | None = None) -> Context:
        """Everything that the step which led to ``step`` knew, computed again. Moves nothing."""
        step = whole_number("step", step, 1)
        return self._control.ask(lambda: self._engine.explain(step, branch), moves=True)

    def autopsy(self, step: int | None = None, branch: str | None = None) -> Autopsy:
        """Where in a step the first value comes from that is not finite; see `toolshed.insight`.

        Takes seconds, for the step is run operation by operation; a training in the background waits.
        Moves nothing.

        Args:
          step: the one that led to this step; by default the one that the run stopped at and went back from.
          branch: on the way to which branch; None for the present one.

        Raises:
          RunError: there is no such step, or none has stopped the run.
        """
        if step is None:
            if self._control.to_blame is None:
                raise RunError(
                    "No value that is not finite has stopped this run. run.autopsy(step) looks into any step."
                )
            step, branch = self._control.to_blame
        number = whole_number("step", step, 1)

        def look(state: TrainState, batch: Any) -> Autopsy:
            return first_nonfinite(self.trainer, state, batch)

        return self._control.ask(lambda: self._engine.look_at(number, branch, look), moves=True)

    # --- edits --------------------------------------------------------------------------------------

    def edit(self, **values: float) -> None:
        """Sets hyperparameters between two steps; training goes on, and nothing is compiled again.

        What can be set: what `optax.inject_hyperparams` made an array of, and the scalars of a loss
        function's state where that is a dict. Each edit is an event, and is made again by `goto`.

        Raises:
          RunError: there is none of that name; the nearest ones are named.
        """
        self._control.ask(lambda: self._edit(values), moves=True)

    def edit_model(self, fn: Callable[[Any], Any]) -> ModelChange:
        """Changes the model: ``fn(model)`` gives the new one. A training in the background is paused first.

        Parameters have the values of the new model; the optimiser's values stay wherever their path, shape
        and dtype still fit.

        Returns:
          What was kept, dropped and new, by path.
        """
        return self._control.ask_at_rest(lambda: self._kept_after(lambda: self._engine.edit_model(fn)))

    # --- on the disk --------------------------------------------------------------------------------

    @property
    def can_save(self) -> bool:
        """Whether the run has a store."""
        return self._durable is not None and not self._durable.ended

    @property
    def folder(self) -> Path | None:
        """The run's directory; None without a store."""
        return self._durable.folder if self._durable is not None and self.can_save else None

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
        stored = self._stored
        saving = self._control.ask(lambda: stored.save(tag), moves=True)
        if wait:
            saving.wait()
        return saving

    @property
    def _stored(self) -> Durable:
        if self._durable is None or not self.can_save:
            raise RunError("This run is kept nowhere. To have it kept, make it with Run(…, store='runs').")
        return self._durable

    def _keep(self, durable: Durable) -> None:
        durable.begin()
        self._durable = self._control.keeps = durable

    # --- buttons ------------------------------------------------------------------------------------

    def request(self, action: str, **arguments: Any) -> None:
        """What a button does: asks for an action by its name and returns at once; errors become events."""
        press(self, self._control, action, arguments)

    # --- in the run's own thread --------------------------------------------------------------------

    def _steps_by_hand(self, n: int) -> Context:
        engine, keeps = self._engine, self._control.keeps
        if keeps is not None:
            keeps.at_start()
        try:
            last = engine.step + n - 1
            while engine.step < last:
                engine.advance(last)
                engine.end_window()
                if keeps is not None:
                    keeps.after_step()
                engine.check_halt()
            context = engine.step_by_hand()
            engine.end_window()
            if keeps is not None:
                keeps.after_step()
        except BaseException:
            engine.recover()
            raise
        finally:
            engine.flush()
        self._context = (engine.step, engine.timeline.current, context)
        status = self._control.status
        self._control.say("paused" if status in ("ready", "finished", "stopped", "failed") else status)
        return context

    def _last_context(self) -> Context:
        engine = self._engine
        here = (engine.step, engine.timeline.current)
        if self._context is None or self._context[:2] != here:
            self._context = (*here, engine.explain(engine.step))
        return self._context[2]

    def _aside(self, fn: Callable[[Engine], Any]) -> Any:
        """``fn(engine)`` of something that reads the data, and after which all is as it was."""

        def experiment() -> Any:
            with self._engine.aside("an experiment"):
                return fn(self._engine)

        return self._control.ask(experiment, moves=True)

    def _kept_after(self, fn: Callable[[], Any]) -> Any:
        """``fn()`` of something that no step can lead to; the state is saved then."""
        result = fn()
        if self._control.keeps is not None:
            self._control.keeps.at_rest()
        return result

    def _edit(self, values: Mapping[str, Any]) -> None:
        self._engine.edit(values)
        self._control.say(None, self._control.message)

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


def _checked_watches(watch: Any) -> tuple[Watch, ...]:
    watches = tuple(watch) if isinstance(watch, Sequence) else (watch,)
    for one in watches:
        if not callable(one):
            raise RunError(f"Expected a watch to be a function, got {paths.describe(one)}.")
    return watches
