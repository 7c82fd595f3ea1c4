"""The losses of a training loop as they come in from the device: checked, and averaged."""

from __future__ import annotations

import math

import jax
import numpy as np

from toolshed.errors import NonFiniteError
from toolshed.training.tape import Rows


class IncomingLosses:
    """Losses of steps, in the order of the steps; keeps their sum, not the losses.

    Args:
      check_finite: whether a loss that is NaN or infinite is an error.
    """

    def __init__(self, *, check_finite: bool):
        self._check_finite = check_finite
        self._total, self._count = 0.0, 0

    @property
    def mean(self) -> float:
        """The mean of all that came; NaN if none did."""
        return self._total / self._count if self._count else math.nan

    def add_rows(self, rows: Rows) -> None:
        """Takes in rows of a tape, whose first column holds the losses.

        Raises:
          NonFiniteError: one is not finite; it names the step.
        """
        losses = rows.values[:, 0]
        bad = np.flatnonzero(~np.isfinite(losses))
        if self._check_finite and len(bad):
            raise _not_finite(int(rows.steps[bad[0]]), float(losses[bad[0]]))
        self._total += float(losses.sum(dtype=np.float64))
        self._count += len(losses)

    def add(self, step: int, loss: jax.Array) -> None:
        """Takes in the loss of one step. Waits for it; raises as `add_rows` does."""
        value = float(loss)
        if self._check_finite and not math.isfinite(value):
            raise _not_finite(step, value)
        self._total += value
        self._count += 1


def _not_finite(step: int, loss: float) -> NonFiniteError:
    return NonFiniteError(
        f"The loss of step {step} is {loss}. Lower the learning rate or clip the gradients; to look at the"
        " step, start from an earlier state and call build_train_step(loss_fn, check_finite=True), which"
        " names the gradients. Trainer(check_finite=False) trains on.",
        step=step,
    )
