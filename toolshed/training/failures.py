"""What was wrong with a call of a step that failed, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from toolshed import paths
from toolshed.errors import BatchError, NonFiniteError, StateError
from toolshed.loss_function import check_is_batch
from toolshed.state import TrainState


def explain(error: Exception, state: Any, batch: Any) -> None:
    """Raises a clearer error where the cause of a failed call can be told."""
    if not isinstance(state, TrainState):
        raise StateError(f"Expected a TrainState, got {paths.describe(state)}.") from None
    if isinstance(error, (RuntimeError, ValueError)) and "deleted" in str(error):
        state.check_alive()
    if isinstance(error, TypeError) and not isinstance(batch, dict):
        check_is_batch(batch)
    if isinstance(error, TypeError) and isinstance(batch, dict):
        for name, leaf in paths.flatten(batch).items():
            if not isinstance(leaf, (int, float, complex)) and not hasattr(leaf, "named_shape"):
                dtype = getattr(leaf, "dtype", None)
                if dtype is None or getattr(dtype, "kind", "f") in "OSUMm":
                    raise BatchError(
                        f"batch/{name} is {paths.describe(leaf)}; expected numbers in an array. Leave it"
                        " out of the batch, or encode it (characters as integers, say)."
                    ) from error


def raise_if_not_finite(finite: jax.Array, state: Mapping[str, Any]) -> None:
    """Raises `NonFiniteError` if the loss or a gradient of a step is not finite. Waits for the device.

    Args:
      finite: whether the loss and each gradient, in the order of their paths, are; bool[1 + n].
      state: the fields of the state from before the step.
    """
    flags = np.asarray(finite)
    if flags.all():
        return
    # Inside the step dicts are in jax's order, which sorts their keys.
    names = ["the loss", *(f"grads/{path}" for path in sorted(state["params"]))]
    bad = [name for name, ok in zip(names, flags, strict=True) if not ok]
    more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
    step = int(state["step"])
    raise NonFiniteError(
        f"Step {step} is not finite in {', '.join(bad[:4])}{more}. The state from before the step is"
        " unchanged. A lower learning rate, gradient clipping or a look at this batch may help.",
        step=step,
    )
