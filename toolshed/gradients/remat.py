"""Rematerialisation: activations computed again instead of kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from toolshed.gradients.strategy import GradientStrategy, LossOfParams, backprop


@dataclasses.dataclass(frozen=True)
class Remat:
    """The exact gradient, with activations computed again in the backward pass instead of kept.

    It trades time for memory: what ``policy`` does not allow to keep is computed a second time. The
    whole loss function is one block here, so that without a policy nothing is kept between the two
    passes, but the backward pass then holds all of it at once. A policy that keeps what each block of
    the model gives (``jax.checkpoint_policies.save_only_these_names``), or ``jax.checkpoint`` around
    each block, lowers the peak where the compiler delays the second computation until it is needed.
    XLA does not on CPUs, where it saves nothing; ask ``compiled.memory_analysis()``. `Accumulate` saves
    memory everywhere.

    Attributes:
      policy: what may be kept: one of ``jax.checkpoint_policies``; None keeps nothing.
      strategy: how the gradients are found.

    Example:
      >>> import jax, toolshed
      >>> strategy = toolshed.gradients.Remat(jax.checkpoint_policies.dots_saveable)

    References:
      Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv:1604.06174.
    """

    policy: Callable[..., Any] | None = None
    strategy: GradientStrategy = backprop

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """Loss, what was carried and aux, and gradients."""

        def fresh(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
            return loss_fn(params, carry, batch, rng)  # jax keeps what it traced by function object

        recomputed: Any = jax.checkpoint(fresh, policy=self.policy)
        return self.strategy(recomputed, params, carry, batch, rng)
