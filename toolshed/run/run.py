"""Run: a training that goes on while you look at it, and can be stepped, steered and rewound."""

from __future__ import annotations

import datetime
import weakref
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from toolshed import paths
from toolshed.checkpoints import Saving
from toolshed.checkpoints.labels import check_dict
from toolshed.errors import RunError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.metrics import Collection
from toolshed.run import place
from toolshed.run.buttons import press
from toolshed.run.control import Control
from toolshed.run.durable import Durable, describe, new_folder
from toolshed.run.edits import ModelChange
from toolshed.run.engine import Engine
from toolshed.run.following import Follower
from toolshed.run.leaf_history import LeafHistory
from toolshed.run.logged import check_logged
from toolshed.run.parts import (
    check_eval_data,
    check_name,
    checked_watches,
    parts_of,
    whole_number,
    whole_number_or_none,
)
from toolshed.run.publisher import Publisher
from toolshed.run.readable import Readable
from toolshed.run.saves import check_every
from toolshed.run.shown import show_in_notebook, shown_in_terminal
from toolshed.run.training import start_watches, steps_by_hand
from toolshed.run.until import Condition
from toolshed.run.watch import LeafWatch
from toolshed.sinks import Sink
from toolshed.state import TrainState
from toolshed.training import Context
from toolshed.training.watches import Watch

_MEGABYTE = 2**20
_numbers = iter(range(1, 1_000_000))


class Run(Readable):
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
      check_finite: whether to stop when a loss is NaN or infinite, to go back to the last state before with
        no such value, and to find out which operation made it; see `autopsy`.
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
        made: dict[str, Any] = {}
        if folder is not None or sinks:
            options = {"norms_every": norms_every, "snapshot_every": snapshot_every}
            options |= {"snapshot_bytes": snapshot_bytes, "check_finite": check_finite}
            made = describe(self._engine, data, eval_data, seed, options) | {"config": config}
        self._followers = [Follower(sink, self.name, made, self._publisher) for sink in sinks]
        if folder is not None:
            self._keep(Durable(self.name, self._engine, self._control, folder, made, every))

    # --- forwards -----------------------------------------------------------------------------------

    def step(self, n: int = 1) -> Context:
        """Makes ``n`` steps here and now; gives everything that the last one knew.

        A training in the background is paused first.

        Raises:
          RunError: ``n`` is no whole number from 1.
          Exception: what a loss function or the data raised; the steps before it are done.
        """
        n = whole_number("n", n, 1)
        context = self._control.ask_at_rest(lambda: self._steps_by_hand(n))
        self._publisher.finish()  # the history has its values
        return context

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
        watches = checked_watches(watch)
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

        Where a value that is not finite stopped it, the autopsy is waited for, too, and is a note of the
        error that is raised; Ctrl-C gives the autopsy up.

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
        them over time. The steps themselves change in no bit. A step hands out what it computed, where that
        leaves its own bits as they are, which the run finds out by trying: gradients of large models then
        cost less than 2 % with ``every=10``. Elsewhere, for small models and for those of very many small
        arrays, gradients and updates are computed again beside the step, which takes about as long.

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

    # --- edits --------------------------------------------------------------------------------------

    def edit(self, **values: float) -> None:
        """Sets hyperparameters between two steps; training goes on, and nothing is compiled again.

        What can be set: what `optax.inject_hyperparams` made an array of, and the scalars of a loss
        function's state where that is a dict. Each edit is an event, and is made again by `goto`.

        Raises:
          RunError: there is none of that name; the nearest ones are named.
        """

        def change() -> None:
            self._engine.edit(values)
            self._control.say(None, self._control.message)

        self._control.ask(change, moves=True)

    def edit_model(self, fn: Callable[[Any], Any]) -> ModelChange:
        """Changes the model: ``fn(model)`` gives the new one. A training in the background is paused first.

        Parameters have the values of the new model; the optimiser's values stay wherever their path, shape
        and dtype still fit.

        Returns:
          What was kept, dropped and new, by path.
        """
        return self._control.ask_at_rest(lambda: self._kept_after(lambda: self._engine.edit_model(fn)))

    # --- on the disk --------------------------------------------------------------------------------

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

    def _keep(self, durable: Durable) -> None:
        durable.begin()
        self._durable = self._control.keeps = durable

    def request(self, action: str, **arguments: Any) -> None:
        """What a button does: asks for an action by its name and returns at once; errors become events."""
        press(self, self._control, action, arguments)

    # --- in the run's own thread --------------------------------------------------------------------

    def _steps_by_hand(self, n: int) -> Context:
        context = steps_by_hand(self._engine, n, self._control.keeps)
        self._context = (self._engine.step, self._engine.timeline.current, context)
        status = self._control.status
        self._control.say("paused" if status in ("ready", "finished", "stopped", "failed") else status)
        return context

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

    def _ipython_display_(self) -> None:
        show_in_notebook(self)
