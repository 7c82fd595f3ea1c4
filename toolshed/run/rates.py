"""The search for a learning rate: a short training aside, in which it grows from step to step."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from toolshed import paths
from toolshed.errors import RunError
from toolshed.run.edits import set_values
from toolshed.run.feed import Feed
from toolshed.run.run import Run
from toolshed.state import TrainState
from toolshed.training import Trainer, TrainStep
from toolshed.training.stepper import copied

_LOOK_EVERY = 10  # steps between two looks at the losses
_WIDTH = 0.04  # of the whole range: how far the smoothing reaches
_DIVERGED = 4.0  # so many times the lowest loss, and the rates are too large


@dataclasses.dataclass(frozen=True)
class LearningRates:
    """The loss by learning rate, as `lr_find` found it.

    Attributes:
      rates: the learning rates, one a step; float64[n].
      losses: the loss that each step computed, with the parameters to which the smaller rates had led;
        float32[n].
      smoothed: the same, smoothed over the logarithm of the rate; float64[n], NaN where a loss is not finite.
      suggested: where the smoothed loss falls most steeply over the logarithm of the rate; None where it
        never falls.
      lowest: where the smoothed loss is lowest, which is too large a rate to train with; None where no loss
        was finite.
      diverged: whether the loss grew so much that the search ended early.
    """

    rates: Float[np.ndarray, " n"]
    losses: Float[np.ndarray, " n"]
    smoothed: Float[np.ndarray, " n"]
    suggested: float | None
    lowest: float | None
    diverged: bool

    def __repr__(self) -> str:
        first, last = self.rates[[0, -1]]
        words = [f"Losses at {len(self.rates)} learning rates from {first:.3g} to {last:.3g}"]
        if self.suggested is None:
            words.append("the loss never falls")
        else:
            words.append(f"it falls most steeply at {self.suggested:.2g} and is lowest at {self.lowest:.2g}")
        return "; ".join([*words, *(["then it diverges"] if self.diverged else [])])


def lr_find(
    source: Run | Trainer,
    data: Any = None,
    *,
    state: TrainState | None = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    name: str = "learning_rate",
) -> LearningRates:
    """Trains for some steps with a learning rate that grows, to see where the loss falls and where it grows.

    Nothing changes: a copy of the state is trained, and the data goes back to where it was. Of a run it is
    the state of now, and a training in the background waits meanwhile. Waits for the device.

    Args:
      source: a run, or a trainer. Its optimiser must keep its learning rate in its state:
        ``optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)``.
      data: batches for a trainer; a run has its own.
      state: of a trainer: where to begin; by default a fresh state.
      low: the first learning rate.
      high: the last one.
      steps: how many there are; each is larger than the one before by the same factor.
      name: what the optimiser calls it.

    Raises:
      RunError: the optimiser keeps no such value, or an argument is out of range.
      DataError: the data gave no batch, or the run's can be read only forwards.

    References:
      L. Smith, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.

    Example:
      >>> import jax, jax.numpy as jnp, optax, toolshed
      >>> from penzai import pz
      >>> from penzai.models.simple_mlp import MLP
      >>> def loss_fn(*, model, state, rng, x, y):
      ...     preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
      ...     return jnp.mean((preds - y) ** 2), state, {}
      >>> mlp = MLP.from_config(jax.random.key(0), [2, 8, 1])
      >>> optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
      >>> trainer = toolshed.Trainer(mlp, optimizer, loss_fn)
      >>> found = toolshed.lr_find(trainer, [{"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}])
      >>> bool(1e-4 < found.suggested < found.lowest < 10)
      True
    """
    if not (0 < low < high < math.inf) or not isinstance(steps, int) or steps < 2:
        raise RunError(
            f"lr_find got low={low!r}, high={high!r}, steps={steps!r}; expected 0 < low < high and at least 2"
            " steps."
        )
    rates = np.geomspace(low, high, steps)
    if isinstance(source, Run):
        if data is not None or state is not None:
            raise RunError("A run has its data and its state; pass neither, or pass run.trainer.")
        return source._aside(
            lambda engine: _sweep(
                engine.programs.quick, engine.state(), engine.feed.take, rates, name, engine.check_halt
            )
        )
    if not isinstance(source, Trainer):
        raise RunError(f"Expected a Run or a Trainer, got {paths.describe(source)}.")
    if data is None:
        raise RunError("A trainer has no data; pass lr_find(trainer, data).")
    feed = Feed(data)
    position = feed.position if feed.goes_back else None
    start = copied(source.init(jax.random.key(0)) if state is None else state)
    step = source.build_step(fields=(), donate=True, record=("loss_total",))
    try:
        return _sweep(step, start, feed.take, rates, name, lambda: None)
    finally:
        if feed.goes_back:
            feed.restore(position)


def _sweep(
    step: TrainStep,
    state: TrainState,
    take: Callable[[], Any],
    rates: Iterable[float],
    name: str,
    check: Callable[[], None],
) -> LearningRates:
    """One step with each rate, until the loss has grown too much. ``state`` is given away."""
    tape = step.tape()
    losses: list[float] = []
    rates = list(rates)
    for number, rate in enumerate(rates, 1):
        check()
        state, _ = step(set_values(state, {name: rate}), take(), tape)
        if number % _LOOK_EVERY == 0 or number == len(rates):
            losses += tape.take().values[:, 0].tolist()
            if _grew(losses):
                break
    return _found(np.array(rates[: len(losses)]), np.array(losses, np.float32))


def _grew(losses: list[float]) -> bool:
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite or not math.isfinite(losses[-1]):
        return True
    # A loss may come close to zero, or be negative: then the first one is the measure.
    return losses[-1] > min(finite) + (_DIVERGED - 1) * max(abs(min(finite)), abs(losses[0]) / _DIVERGED)


def _found(rates: np.ndarray, losses: np.ndarray) -> LearningRates:
    smoothed = _smooth(losses)
    lowest = int(np.nanargmin(smoothed)) if np.isfinite(smoothed).any() else None
    suggested = None
    if lowest is not None and lowest > 0:
        slopes = np.diff(smoothed[: lowest + 1])
        steepest = int(np.nanargmin(slopes)) if np.isfinite(slopes).any() else 0
        suggested = float(np.sqrt(rates[steepest] * rates[steepest + 1])) if slopes[steepest] < 0 else None
    return LearningRates(
        rates,
        losses,
        smoothed,
        suggested,
        None if lowest is None else float(rates[lowest]),
        _grew(losses.tolist()),
    )


def _smooth(losses: np.ndarray) -> np.ndarray:
    """The mean of the losses nearby, by a Gaussian; of finite losses alone."""
    finite = np.isfinite(losses)
    values = np.where(finite, losses, 0).astype(np.float64)
    number = np.arange(len(losses))
    weights = np.exp(-0.5 * ((number[:, None] - number) / max(_WIDTH * len(losses), 1.0)) ** 2) * finite
    with np.errstate(invalid="ignore"):
        return np.where(finite, weights @ values / weights.sum(axis=1), np.nan)
