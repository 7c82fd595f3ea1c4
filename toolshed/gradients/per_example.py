"""Gradients of single examples: clipped and noised, for privacy or for robustness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from toolshed.errors import BatchError, LossError, ToolshedError
from toolshed.gradients.parts import Parts, join_aux, plain, weighted, weighted_sum
from toolshed.gradients.strategy import GradientStrategy, LossOfParams, backprop
from toolshed.paths import key_string


@dataclasses.dataclass(frozen=True)
class PerExample:
    """The mean of the gradients of single examples, each clipped, with noise.

    The loss function sees batches of one example with that example's mask, all at once (``jax.vmap``):
    it needs memory for one gradient an example. Masked examples contribute nothing. Without ``clip`` the
    result is the gradient of the mean loss. Each example has a key of its own, folded from the step's
    key and its number.

    Clipping and noise are optax's (``optax.per_example_global_norm_clip`` and
    ``optax.contrib.differentially_private_aggregate``, which counts padding as examples; here the sum is
    divided by the number of real ones). The gradients alone are private: the loss, aux and metrics are
    not. Inside an `Accumulate`, noise is added once a micro-batch.

    ``aux`` is put together as `Accumulate` does it. State that the forward pass changes must come out
    the same for each example (a counter, a random stream's position); what depends on the example, such
    as running statistics, is refused, because there is one state and not one an example.

    Attributes:
      clip: largest L2 norm of an example's gradient over all parameters; None leaves it as it is.
      noise: standard deviation of the normal noise added to the sum, in units of ``clip``; None adds
        none.
      strategy: how the gradient of one example is found.

    Raises:
      BatchError: while tracing: entries differ in their number of examples, or ``clip`` meets a mask
        with more than one entry an example.
      LossError: while tracing: state depends on the example, or a leaf of aux cannot be put together.

    Example:
      >>> import jax, jax.numpy as jnp, toolshed
      >>> def loss_fn(params, carry, batch, rng):
      ...     return jnp.mean(params["w"] * batch["x"]), (carry, {})
      >>> params, batch = {"w": jnp.array(0.0)}, {"x": jnp.array([3.0, 1.0])}
      >>> clipped = toolshed.gradients.PerExample(clip=1.5)
      >>> loss, kept, grads = clipped(loss_fn, params, (), batch, jax.random.key(0))
      >>> float(grads["w"])  # (1.5 + 1) / 2
      1.25

    References:
      Abadi et al., Deep Learning with Differential Privacy, arXiv:1607.00133.
    """

    clip: float | None = None
    noise: float | None = None
    strategy: GradientStrategy = backprop

    def __post_init__(self) -> None:
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise ToolshedError(f"PerExample got clip={self.clip!r}; expected a norm over 0, or None.")
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise ToolshedError(f"PerExample got noise={self.noise!r}; expected a number from 0, or None.")
        if self.noise is not None and self.clip is None:
            raise ToolshedError(
                f"PerExample got noise={self.noise!r} without clip. The noise is measured in units of the"
                " norm that gradients are clipped to: PerExample(clip=1.0, noise=…)."
            )

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """Loss, what was carried and aux, and gradients, of the whole batch."""
        parts = Parts(batch, None)
        if self.clip is not None and parts.mask is not None and parts.mask.shape[1] > 1:
            raise BatchError(
                f"The mask has {parts.mask.shape[1]} entries an example; with clip each example weighs the"
                " same, so it needs one. Give a mask of examples, and that of their parts another name."
            )

        def gradients_of(batch: Any, rng: Any) -> Any:
            loss, (after, aux), grads = self.strategy(loss_fn, params, carry, batch, rng)
            return (loss, plain(aux), grads), after

        def one(number: Any, leaves: Any) -> Any:
            return gradients_of(parts.batch_of(leaves), jax.random.fold_in(rng, number))

        (losses, stacked, grads), after = _for_each(one, jnp.arange(parts.n), parts.leaves)
        (_, whole, _), _ = jax.eval_shape(gradients_of, batch, rng)
        aux = join_aux(jax.tree.leaves(stacked), whole, parts.weights)
        # Every number below that of an example is taken: this one is the noise's.
        grads = self._combined(grads, parts, jax.random.fold_in(rng, parts.n))
        loss = weighted_sum(losses, parts.weights)
        return loss, (after, aux), grads

    def _combined(self, grads: Any, parts: Parts, key: jax.Array) -> Any:
        """The gradients of all examples as one. ``grads`` has leaves [n, ...]."""
        if self.clip is None:
            return jax.tree.map(lambda grad: weighted_sum(grad, parts.weights), grads)
        real = jnp.ones(parts.n, bool) if parts.mask is None else parts.mask[:, 0]
        leaves, treedef = jax.tree.flatten(grads)
        wide = [weighted(leaf, real.reshape(-1, *(1 for _ in leaf.shape[1:]))) for leaf in leaves]
        summed: Any
        if self.noise is None:
            summed, _ = optax.per_example_global_norm_clip(wide, self.clip)
        else:
            aggregate = optax.contrib.differentially_private_aggregate(self.clip, self.noise, key)
            mean: Any = aggregate.update(wide, aggregate.init(wide))[0]
            summed = [leaf * parts.n for leaf in mean]
        count = jnp.maximum(real.sum(), 1)
        means = [(total / count).astype(leaf.dtype) for total, leaf in zip(summed, leaves, strict=True)]
        return treedef.unflatten(means)


def _for_each(one: Callable[..., Any], *over: Any) -> Any:
    """``one`` for each example, and the state after it, which must be the same for all."""
    try:
        return jax.vmap(one, out_axes=(0, None))(*over)
    except ValueError:
        shapes = jax.eval_shape(jax.vmap(one), *over)  # raises again if the fault is in the loss function
        for number, (keys, _) in enumerate(jax.tree_util.tree_flatten_with_path(shapes[1])[0]):

            def leaf(*x: Any, number: int = number) -> Any:
                return jax.tree.leaves(one(*x)[1])[number]

            try:
                jax.eval_shape(jax.vmap(leaf, out_axes=None), *over)
            except ValueError:
                raise LossError(
                    f"PerExample cannot carry {_name(keys)}: its new value depends on the example, as running"
                    " statistics do, and there is one state for all. Freeze that state, or use Accumulate."
                ) from None
        raise


def _name(keys: Any) -> str:
    """What a training step calls a part of its carry, which is (model_state, loss_fn_state)."""
    names = [key_string(key) for key in keys] or ["the state"]
    return "/".join([{"0": "model_state", "1": "loss_fn_state"}.get(names[0], names[0]), *names[1:]])
