"""Where a step's arrays lie when there are many devices.

A step whose results lie elsewhere than its arguments would be compiled a second time for its own
output. So what is not given a sharding is replicated over the mesh, before the first step already.
"""

from __future__ import annotations

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from toolshed.state import TrainState
from toolshed.training.carried import Carried


class Placement:
    """The shardings of a step's arguments and results.

    Args:
      states: a TrainState with shardings for leaves, one sharding for ``params``, ``opt_state`` and
        ``model_state``, or None.
      batch: shardings for the batch, or None.

    Attributes:
      replicated: the sharding of whatever has none of its own; None without a mesh.
    """

    def __init__(self, states: Any, batch: Any):
        is_sharding = lambda leaf: isinstance(leaf, jax.sharding.Sharding)  # noqa: E731
        given = jax.tree.leaves((states, batch), is_leaf=is_sharding)
        meshes = [sharding.mesh for sharding in given if isinstance(sharding, NamedSharding)]
        self.replicated = NamedSharding(meshes[0], PartitionSpec()) if meshes else None
        self.is_given = bool(given)
        self._batch = batch
        if isinstance(states, TrainState):
            self._state = Carried(states.params, states.opt_state, states.model_state, self.replicated)
        else:
            everything: Any = self.replicated if states is None else states
            self._state = Carried(everything, everything, everything, self.replicated)

    def jit_arguments(self, *, observing: bool = False) -> dict[str, Any]:
        """The sharding arguments of jax.jit for a step, or for the program that observes one."""
        if not self.is_given:
            return {}
        inputs = (*self._state, self.replicated, self.replicated, self._batch)
        if observing:
            return {"in_shardings": inputs}
        return {
            "in_shardings": (*inputs, self.replicated),
            "out_shardings": (tuple(self._state), None, self.replicated),
        }

    def fits(self, step: jax.Array) -> bool:
        """True if a state with this ``step`` lies where it belongs already."""
        return self.replicated is None or step.sharding == self.replicated

    def place(self, carried: Carried) -> Carried:
        """The same values where they belong."""
        return Carried(*(jax.device_put(part, to) for part, to in zip(carried, self._state, strict=True)))

    def replicate(self, values: Any) -> Any:
        """The same values on every device."""
        return values if self.replicated is None else jax.device_put(values, self.replicated)
