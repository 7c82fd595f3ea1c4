"""The compiled steps of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolshed.run.recording import recording_for
from toolshed.state import TrainState
from toolshed.training import Context, Trainer, TrainStep
from toolshed.training.stepper import Stepper
from toolshed.training.tape import Tape


class Programs:
    """The programs that make a run's steps; which of them makes a step follows from its number alone.

    Args:
      trainer: whose steps.
      state: any state that they are for.
      window: steps over which metrics gather.
      norms_every: in every how many steps the norms are computed, 0 for never, None for what suits.

    Attributes:
      trainer: see above.
      window: see above.
      recording: what the steps record.
      quick: makes most steps.
      careful: makes a step by hand, with every field of the Context.
    """

    def __init__(self, trainer: Trainer, state: TrainState, *, window: int, norms_every: int | None):
        self.trainer = trainer
        self.window = window
        self.recording = recording_for(state, norms_every=norms_every)
        self.quick = trainer.build_step(fields=(), donate=True, record=self.recording.between)
        self.careful = trainer.build_step()
        self._measuring = trainer.build_step(fields=(), donate=True, record=self.recording.scalars)

    def tape(self) -> Tape:
        """An empty tape for any of the steps."""
        return self.quick.tape()

    def at_once(self, most: int, number: int, end: int | None) -> int:
        """How many steps can be made in one call from a step on, for one program has to make them all.

        Args:
          most: no more than these.
          number: the step.
          end: the step not to go beyond, or None.
        """
        if most == 1:
            return 1
        rhythms = [self.window]
        if self._measuring is not self.quick:
            if number % self.recording.norms_every == 0:
                return 1
            rhythms.append(self.recording.norms_every)
        room = [every - number % every for every in rhythms]
        return min(most, *room, *([] if end is None else [end - number]))

    def make(
        self,
        stepper: Stepper,
        number: int,
        batches: Sequence[Any],
        tape: Tape,
        step: TrainStep | None = None,
    ) -> Context:
        """The steps from a number on, one for each batch, from any state.

        Args:
          stepper: has the state.
          number: of the first step.
          batches: one for each step.
          tape: takes what is recorded.
          step: a program that makes the same step, and hands out what it knows; see `handing_out`.

        Returns:
          What the last of them handed out.
        """
        return stepper(step or self.of(number), batches, tape, anew=number % self.window == 0)

    def of(self, number: int) -> TrainStep:
        """The program that makes a step."""
        return self.quick if number % self.recording.norms_every else self._measuring

    def handing_out(self, number: int, fields: tuple[str, ...]) -> TrainStep:
        """A program for the same step that hands out fields of the Context, too.

        The compiler may round its state differently: see the note of `toolshed.build_train_step`.
        """
        record = self.recording.between if self.of(number) is self.quick else self.recording.scalars
        return self.trainer.build_step(fields=fields, donate=True, record=record)
