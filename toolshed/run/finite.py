"""The way back from a value that is not finite, to the last step at which all was."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from toolshed.paths import flatten
from toolshed.run.engine import Engine
from toolshed.run.timeline import Segment
from toolshed.state import TrainState


def last_finite(engine: Engine, step: int) -> int:
    """The last step before ``step`` after which every value of the state is finite.

    It is found by making steps again: usually one, for most values that are not finite come from a batch or
    from the gradients of the step before. What was not finite when the run began counts as finite: some
    optimisers start from infinity. Moves nothing; waits for the device.

    Args:
      engine: of the run.
      step: a step whose loss is not finite, or whose update.
    """
    root = _root(engine)
    excused = bad_leaves(root.snapshots[0].on_device)

    def is_finite(number: int) -> bool:
        engine.check_halt()
        return number == root.start or not bad_leaves(engine.made_again(number)) - excused

    with engine.aside("looking for the last finite state"):
        low, distance = step - 1, 1
        high = step
        while not is_finite(low):
            high, distance = low, 2 * distance
            low = max(step - distance, root.start)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if is_finite(middle) else (low, middle)
    return low


def bad_now(engine: Engine) -> list[str]:
    """The paths of what is not finite in a run's state and was when it began, parameters first.

    Waits for the device.
    """
    bad = bad_leaves(engine.live_state())
    if bad:
        bad -= bad_leaves(_root(engine).snapshots[0].on_device)
    return sorted(bad, key=lambda path: (not path.startswith("params/"), path))


def bad_leaves(state: TrainState) -> set[str]:
    """The paths of what a step changes in a state and is not finite. Waits for the device."""
    tree = {name: getattr(state, name) for name in ("params", "opt_state", "model_state", "loss_fn_state")}
    leaves = {path: leaf for path, leaf in flatten(tree).items() if _can_be_bad(leaf)}
    found = {path: _is_bad(leaf) for path, leaf in leaves.items()}
    return {path for path, is_bad in jax.device_get(found).items() if is_bad}


def _root(engine: Engine) -> Segment:
    return next(part for part in engine.timeline.segments.values() if part.parent is None)


def _can_be_bad(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


@jax.jit  # compiled once for each shape, not for each tree
def _is_bad(leaf: jax.Array) -> jax.Array:
    return ~jnp.isfinite(leaf).all()
