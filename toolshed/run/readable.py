"""What can be read of a run at any time, from any cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from toolshed.checkpoints import Repository
from toolshed.errors import RunError
from toolshed.insight import Autopsy, first_nonfinite
from toolshed.run.control import Control
from toolshed.run.durable import Durable
from toolshed.run.engine import Engine
from toolshed.run.events import Event, Listener
from toolshed.run.histograms import histograms_over_time
from toolshed.run.history import History
from toolshed.run.leaf_history import LeafHistory
from toolshed.run.parts import whole_number
from toolshed.run.progress import Progress
from toolshed.run.publisher import Publisher
from toolshed.run.timeline import Timeline
from toolshed.state import TrainState
from toolshed.training import Context, Trainer
from toolshed.views import View
from toolshed.views.overlays import overlay


class Readable:
    """The half of a `toolshed.Run` that changes nothing.

    Attributes:
      name: what the run is called.
    """

    name: str
    _publisher: Publisher
    _engine: Engine
    _control: Control
    _context: tuple[int, str, Context] | None = (
        None  # the one that was asked for last, with its step and branch
    )
    _durable: Durable | None = None

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
            elapsed=engine.clock.elapsed,
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

    def explain(self, step: int, branch: str | None = None) -> Context:
        """Everything that the step which led to ``step`` knew, computed again. Moves nothing."""
        step = whole_number("step", step, 1)
        return self._control.ask(lambda: self._engine.explain(step, branch), moves=True)

    def histograms(self, path: str, *, most: int = 12) -> dict[int, Int64[np.ndarray, "49"]]:
        """The distribution of one array over time, from the snapshots that the timeline keeps.

        Parameters are taken out of the snapshots; of gradients, updates and whatever else a step knows, the
        one step after each snapshot is computed again. A training goes on in between. Moves nothing.
        `toolshed.views.figures.ridges` draws them.

        Args:
          path: into a Context: ``params/mlp/w``, ``grads/mlp/w``.
          most: how many steps, evenly spread.

        Returns:
          By the number of steps done, the counts of `toolshed.insight.HISTOGRAM_EDGES`, signed and
          logarithmic.

        Raises:
          RunError: no step was made yet.
          ContextKeyError: there is no such array.
          DataError: the data can be read only forwards, so that no step can be computed again.
        """
        most = whole_number("most", most, 1)
        return histograms_over_time(self._engine, self._control, path, most)

    def autopsy(self, step: int | None = None, branch: str | None = None) -> Autopsy:
        """Where in a step the first value comes from that is not finite; see `toolshed.insight`.

        A run that stopped at such a value makes one by itself, which is given here, shown in the dashboard
        and an event. Any other takes seconds, for the step is run operation by operation; a training in the
        background waits. Moves nothing.

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
            found = self._control.autopsy()
            if found is not None:
                return found
            step, branch = self._control.to_blame
        number = whole_number("step", step, 1)

        def look(state: TrainState, batch: Any) -> Autopsy:
            return first_nonfinite(self.trainer, state, batch)

        return self._control.ask(lambda: self._engine.look_at(number, branch, look), moves=True)

    @property
    def watched(self) -> Mapping[str, LeafHistory]:
        """What is being watched, by pattern."""
        found = {name: watch.history for name, watch in self._engine.looks.watches.items()}
        return {name: history for name, history in found.items() if history is not None}

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

    @property
    def _stored(self) -> Durable:
        if self._durable is None or not self.can_save:
            raise RunError("This run is kept nowhere. To have it kept, make it with Run(…, store='runs').")
        return self._durable

    def _last_context(self) -> Context:
        engine = self._engine
        here = (engine.step, engine.timeline.current)
        if self._context is None or self._context[:2] != here:
            self._context = (*here, engine.explain(engine.step))
        return self._context[2]

    def _last(self, name: str) -> tuple[int, float] | None:
        return self.history.last(name) if name in self.history.names else None

    def __repr__(self) -> str:
        progress = self.progress
        goal = f" of {progress.goal:,}" if progress.goal is not None else ""
        loss = self._last("train/loss")
        value = f", loss {loss[1]:.4g}" if loss is not None and math.isfinite(loss[1]) else ""
        return f"Run({self.name!r}: {progress.status}, step {progress.step:,}{goal}{value})"
