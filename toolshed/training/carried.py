"""What a step changes, as it crosses the jit boundary."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax


class Carried(NamedTuple):
    """Values of a TrainState that a step changes, grouped by what may be donated.

    Attributes:
      params: trainable values by path.
      opt_state: the optimiser's state.
      model_state: what the forward pass changes, by path.
      rest: the step's number, the loss function's state and the metric states.
    """

    params: dict[str, jax.Array]
    opt_state: Any
    model_state: dict[str, jax.Array]
    rest: Any
