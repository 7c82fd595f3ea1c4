"""Accumulation: the gradient of a big batch in the memory of a small one."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from toolshed.errors import ToolshedError
from toolshed.gradients.parts import Parts, join_aux, plain, weighted
from toolshed.gradients.strategy import GradientStrategy, LossOfParams, backprop


@dataclasses.dataclass(frozen=True)
class Accumulate:
    """The gradient of the whole batch, from micro-batches one after another.

    Equal to the gradient of the batch at once, for a loss function that is a mean over examples (over
    those whose ``mask`` is true): each micro-batch weighs as much as it has real examples. One that is
    padding alone contributes nothing. Activations are held for one micro-batch at a time, which is what
    it is for. It takes longer than the batch at once.

    - Model state and the loss function's state go from each micro-batch to the next. A layer that
      normalises by its batch sees micro-batches, so there the results differ.
    - Each micro-batch has a key of its own, folded from the step's key and its number.
    - ``aux`` looks as for the batch at once. Leaves with an axis of examples are concatenated in order.
      Of others, floating-point values are averaged with the same weights as the gradients, integers are
      taken for counts and added, and of truth values the last micro-batch's is kept.

    A batch that is sharded over devices is cut into consecutive examples, which moves them between
    devices.

    Attributes:
      n: number of micro-batches; it must divide the batch size.
      strategy: how the gradients of each are found.

    Raises:
      BatchError: while tracing: ``n`` does not divide the number of examples, or entries differ in it.
      LossError: while tracing: a leaf of aux depends on the number of examples in another way.

    Example:
      >>> import jax, jax.numpy as jnp, toolshed
      >>> def loss_fn(params, carry, batch, rng):
      ...     return jnp.mean((params["w"] - batch["x"]) ** 2), (carry, {"preds": 2 * batch["x"]})
      >>> params, batch = {"w": jnp.array(5.0)}, {"x": jnp.array([1.0, 2.0, 3.0, 4.0])}
      >>> accumulate = toolshed.gradients.Accumulate(2)
      >>> loss, (carry, aux), grads = accumulate(loss_fn, params, (), batch, jax.random.key(0))
      >>> float(loss), float(grads["w"])  # (16 + 9 + 4 + 1) / 4, and 2 (4 + 3 + 2 + 1) / 4
      (7.5, 5.0)
      >>> aux["preds"].tolist()
      [2.0, 4.0, 6.0, 8.0]
    """

    n: int
    strategy: GradientStrategy = backprop

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise ToolshedError(f"Accumulate got n={self.n!r}; expected a whole number from 1.")

    def __call__(
        self, loss_fn: LossOfParams, params: Any, carry: Any, batch: Any, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Any], Any]:
        """Loss, what was carried and aux, and gradients, as of the whole batch."""
        parts = Parts(batch, self.n)

        def gradients_of(carry: Any, batch: Any, rng: Any) -> Any:
            loss, (carry, aux), grads = self.strategy(loss_fn, params, carry, batch, rng)
            return (loss, grads), carry, plain(aux)

        def body(so_far: Any, part: Any) -> Any:
            total, carry = so_far
            number, weight, leaves = part
            key = jax.random.fold_in(rng, number)
            found, new_carry, aux = gradients_of(carry, parts.batch_of(leaves), key)
            total = jax.tree.map(lambda x, y: x + weighted(y, weight), total, found)
            if parts.mask is not None:
                new_carry = jax.tree.map(lambda x, y: jnp.where(weight > 0, y, x), carry, new_carry)
            return (total, new_carry), jax.tree.leaves(aux)

        like, _, whole = jax.eval_shape(gradients_of, carry, batch, rng)
        over = (jnp.arange(self.n), parts.weights, parts.leaves)
        (total, carry), stacked = jax.lax.scan(body, (jax.tree.map(_zeros, like), carry), over)
        loss, grads = jax.tree.map(lambda x, y: x.astype(y.dtype), total, like)
        return loss, (carry, join_aux(stacked, whole, parts.weights)), grads


def _zeros(like: Any) -> jax.Array:
    """Where to add up values of a type: in at least 32 bits."""
    return jnp.zeros(like.shape, jnp.promote_types(like.dtype, jnp.float32))
