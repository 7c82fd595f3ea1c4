"""What a run is made of: a trainer, a first state and data, from the arguments that people give."""

from __future__ import annotations

from typing import Any

import jax
import optax

from toolshed import paths
from toolshed.errors import RunError
from toolshed.gradients import GradientStrategy, backprop
from toolshed.metrics import Collection
from toolshed.state import TrainState
from toolshed.training import Trainer


def parts_of(
    what: tuple[Any, ...], metrics: Collection | None, strategy: GradientStrategy, seed: int
) -> tuple[Trainer, TrainState, Any]:
    """The trainer, the first state and the data, from what `Run` is called with."""
    if what and isinstance(what[0], Trainer):
        if metrics is not None or strategy is not backprop:
            raise RunError("metrics and gradient_strategy are the trainer's: pass them to Trainer(…).")
        if len(what) == 3 and isinstance(what[1], TrainState):
            return what[0], what[1], what[2]
        if len(what) == 2:
            return what[0], what[0].init(jax.random.key(seed)), what[1]
    elif len(what) == 4 and isinstance(what[1], optax.GradientTransformation):
        model, optimizer, loss_fn, data = what
        trainer = Trainer(model, optimizer, loss_fn, metrics=metrics, gradient_strategy=strategy)
        return trainer, trainer.init(jax.random.key(seed)), data
    came = ", ".join(paths.describe(part) for part in what) or "nothing"
    raise RunError(
        "Expected Run(trainer, state, data), Run(trainer, data) or Run(model, optimizer, loss_fn, data),"
        f" got {came}."
    )
