"""Inquest: finds out by itself where the value came from that stopped a run, until somebody goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolshed.insight import Autopsy
from toolshed.insight.nonfinite import search
from toolshed.latch import Latch
from toolshed.run.engine import Engine
from toolshed.run.events import one_line
from toolshed.run.findings import findings, sentence
from toolshed.state import TrainState


class Abandoned(Exception):  # noqa: N818
    """Somebody goes on, so that nobody waits for the answer."""


class Inquest:
    """The autopsy of the step that stopped a run, which comes out as an event.

    It runs in the run's own thread, operation by operation. Between two of them whoever asks the run for
    something is served; as soon as the run moves, or is told to stop, the search is given up.

    Args:
      engine: of the run, which stands at the step before the guilty one.
      branch: on which the guilty step was made.
      serve: does what others ask for.
      is_waiting: whether somebody asks.
      rests: whether the run is still as it was when it stopped.

    Attributes:
      step: the guilty step.
      found: the answer; None before it is there, and where there is none.
      over: set when nothing more will come.
      wanted: set to False by any thread to have it end.
    """

    def __init__(
        self,
        engine: Engine,
        branch: str,
        *,
        serve: Callable[[], None],
        is_waiting: Callable[[], bool],
        rests: Callable[[], bool],
    ):
        self.step = engine.step + 1
        self.found: Autopsy | None = None
        self.over = Latch()
        self.wanted = True
        self._engine = engine
        self._branch = branch
        self._serve = serve
        self._is_waiting = is_waiting
        self._rests = rests

    def run(self) -> None:
        """Searches, and tells what was found. Raises nothing."""
        engine, step = self._engine, self.step
        try:
            self._check()
            state, batch, place = engine.look_at(step, self._branch, self._take)
            found = search(engine.trainer, (state, batch), {}, between=self._check)
            self.found = found
            data = findings(found, place, engine.feed.length)
            engine.publisher.event("autopsy", step, self._branch, sentence(data), **data)
        except Abandoned:
            pass
        except Exception as error:  # the run is as it was
            engine.tell("note", f"no autopsy of step {step:,} could be made: {one_line(error)}")
        finally:
            self.over.set()

    def _take(self, state: TrainState, batch: Any) -> tuple[TrainState, Any, Any]:
        self._engine.feed.give_back()
        return state, batch, self._engine.feed.position

    def _check(self) -> None:
        """Between two operations: lets others have what they ask for.

        Raises:
          Abandoned: the run goes on.
        """
        if self._is_stale():
            raise Abandoned
        if self._is_waiting():
            self._serve()
            if self._is_stale():
                raise Abandoned

    def _is_stale(self) -> bool:
        engine = self._engine
        return not self.wanted or engine.halts or engine.step != self.step - 1 or not self._rests()
