"""How much of a gradient is signal: its spread over the examples of a batch, beside its length."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.batches import batch_size
from toolshed.errors import BatchError, ToolshedError
from toolshed.gradients import GradientStrategy
from toolshed.gradients.parts import Parts
from toolshed.insight.compare import ratio
from toolshed.insight.objectives import Objective, objective
from toolshed.insight.sources import loss_and_strategy
from toolshed.insight.tables import number, table
from toolshed.state import TrainState


@dataclasses.dataclass(frozen=True)
class GradientNoise:
    """What `gradient_noise` found, by parameter path and over all parameters.

    Attributes:
      signal: the estimated length of the true gradient, ‖G‖; 0 where the noise hides it.
      noise: by how much the gradient of a single example strays, √tr Σ.
      snr: how far the gradient of the whole batch stands out of its noise: ‖G‖ by √(tr Σ / examples).
      signal_of_all, noise_of_all, snr_of_all: the same over all parameters together.
      noise_scale: tr Σ / ‖G‖², a number of examples: in batches much smaller than this, the noise
        prevails, and twice the batch is worth twice the steps; much larger ones waste examples. Infinite
        where the noise hides the gradient.
      examples: how many there were.
      parts: into how many parts they were cut.
    """

    signal: Mapping[str, float]
    noise: Mapping[str, float]
    snr: Mapping[str, float]
    signal_of_all: float
    noise_of_all: float
    snr_of_all: float
    noise_scale: float
    examples: int
    parts: int

    def __repr__(self) -> str:
        rows = [
            [path, number(self.signal[path]), number(self.noise[path]), number(self.snr[path])]
            for path in self.signal
        ]
        total = [number(value) for value in (self.signal_of_all, self.noise_of_all, self.snr_of_all)]
        head = f"Gradients of {self.parts} parts of a batch of {self.examples:,} examples"
        scale = f"noise scale: {number(self.noise_scale)} examples"
        return "\n".join([head, *table(["", "signal", "noise", "snr"], [*rows, ["all", *total]]), scale])


def gradient_noise(
    source: Any, state: TrainState, batch: Mapping[str, Any], *, parts: int | None = None
) -> GradientNoise:
    """Measures how much of a gradient is noise, from the gradients of parts of one batch.

    With n parts of b examples each, and gradients g₁ … gₙ with mean ḡ:

        tr Σ = b Σ‖gᵢ - ḡ‖² / (n - 1)        the variance of a single example's gradient
        ‖G‖² = ‖ḡ‖² - Σ‖gᵢ - ḡ‖² / (n (n - 1))    the true gradient's length, without bias

    Both are estimates from one batch, rough where n is small: average over several batches before you
    believe the second digit. The loss must be a mean over examples. Waits for the device.

    Args:
      source: a loss function, or the step or trainer that has it, whose gradient strategy is used.
      state: where the gradients are taken.
      batch: entries by name, without padding.
      parts: how many parts; it must divide the number of examples. None for one part an example.

    Raises:
      BatchError: the batch cannot be cut so, or has padding.
      StateError: ``state`` is no state, or its arrays were donated.
      ToolshedError: ``parts`` is less than 2.

    References:
      S. McCandlish, J. Kaplan, D. Amodei, An Empirical Model of Large-Batch Training, arXiv:1812.06162,
      appendix A.1: ‖G‖² and tr Σ from gradients of small batches and of a big one, here of parts and
      of their union; noise_scale is their "simple" noise scale.
    """
    loss = objective(source, state, batch)
    examples = len(np.asarray(batch["mask"])) if "mask" in batch else int(batch_size(batch))
    n = examples if parts is None else parts
    if not isinstance(n, int) or n < 2:
        raise ToolshedError(f"gradient_noise got {n!r} parts; expected a whole number from 2.")
    if "mask" in batch and not np.asarray(batch["mask"]).all():
        raise BatchError(
            "The batch has padding (mask is false somewhere), and parts of it would weigh differently. Give a"
            " batch that is full: toolshed.data.from_arrays(…, last='drop')."
        )
    measured = jax.device_get(_measure(loss, state.params, loss_and_strategy(source)[1], n))
    spread, square = ({path: float(values[i]) for path, values in measured.items()} for i in range(2))
    estimates = {path: _estimate(spread[path], square[path], examples, n) for path in state.params}
    signal, noise, snr = ({path: one[i] for path, one in estimates.items()} for i in range(3))
    of_all = _estimate(math.fsum(spread.values()), math.fsum(square.values()), examples, n)
    return GradientNoise(
        signal, noise, snr, *of_all, ratio(of_all[1] ** 2, of_all[0] ** 2), examples=examples, parts=n
    )


def _estimate(spread: float, square: float, examples: int, n: int) -> tuple[float, float, float]:
    """Signal, noise and their ratio, from Σ‖gᵢ - ḡ‖² and ‖ḡ‖²."""
    variance = spread / (n - 1) * (examples / n)
    signal = math.sqrt(max(square - spread / (n * (n - 1)), 0.0))
    return signal, math.sqrt(variance), ratio(signal, math.sqrt(variance / examples))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _measure(loss: Objective, params: Any, strategy: GradientStrategy, n: int) -> dict[str, Any]:
    """By path, Σ‖gᵢ - ḡ‖² and ‖ḡ‖²; float32[2] each."""
    parts = Parts(loss.batch, n)

    def body(so_far: Any, part: Any) -> Any:
        # Welford's way to sum up squares of deviations, which does not cancel.
        mean, spread = so_far
        i, leaves = part
        grads = loss.gradients(strategy, params, parts.batch_of(leaves), jax.random.fold_in(loss.rng, i))
        grads = {path: grads[path].astype(mean[path].dtype) for path in mean}
        new = {path: mean[path] + (grads[path] - mean[path]) / (i + 1) for path in mean}
        for path in mean:
            products = jnp.conj(grads[path] - mean[path]) * (grads[path] - new[path])
            spread = {**spread, path: spread[path] + products.real.sum()}
        return (new, spread), None

    wide = {path: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)) for path, x in params.items()}
    start = (wide, {path: jnp.zeros((), jnp.float32) for path in params})
    (mean, spread), _ = jax.lax.scan(body, start, (jnp.arange(parts.n), parts.leaves))
    return {path: jnp.stack([spread[path], (jnp.abs(mean[path]) ** 2).sum()]) for path in mean}
