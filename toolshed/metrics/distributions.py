"""How well predicted probabilities fit: cross-entropy, divergence, perplexity. In nats."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.metrics.metric import (
    AUTO,
    Averaged,
    array,
    averaged,
    check_classes,
    check_same_shape,
    counted,
    weights_of,
)


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Averaged):
    """The mean of minus the log of the probability that was given to the true class.

    Attributes:
      predictions: a Context path of logits, float[..., classes]. Log-probabilities are logits, too.
      targets: a Context path of classes, int[...]. A class out of range that counts makes it NaN.
      mask: what counts; see `toolshed.metrics.Mean`. For a sequence, bool[batch] or bool[batch, time].
      weights: a Context path of a weight for each target or for the first axes, float[...].
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    weights: str | None = None

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        logits, targets = array(context, self.predictions), array(context, self.targets)
        check_classes(logits, self.predictions, targets, self.targets)
        mask = counted(context, self.mask, self.targets, targets)
        known = (targets >= 0) & (targets < logits.shape[-1])
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        at = jnp.where(known, targets, 0).astype(jnp.int32)
        values = -jnp.take_along_axis(logs, at[..., None], axis=-1)[..., 0]
        values = jnp.where(known, values, jnp.nan)
        return averaged(values, mask, weights_of(context, self.weights, self.targets, targets))


@dataclasses.dataclass(frozen=True)
class Perplexity(CrossEntropy):
    """e to the mean cross-entropy over all tokens seen: among how many a model is undecided.

    Attributes as in `CrossEntropy`.
    """

    def compute(self, state: Float32[Array, "2 2"]) -> Float32[Array, ""]:
        return jnp.exp(super().compute(state))


@dataclasses.dataclass(frozen=True)
class BinaryCrossEntropy(Averaged):
    """The mean cross-entropy of two classes: ``-t log p - (1 - t) log(1 - p)``.

    Attributes:
      predictions: a Context path of logits, float[...], or of probabilities.
      targets: a Context path of probabilities of the positive class (0 and 1, say), same shape.
      mask: what counts; see `toolshed.metrics.Mean`.
      from_logits: False if the predictions are probabilities. 0 and 1 are then moved inside by 1.2e-7, a
        step of float32, so that a prediction that is sure and wrong costs 15.9 and not infinity.
      weights: a Context path of a weight for each target or for the first axes, float[...].
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    from_logits: bool = True
    weights: str | None = None

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        given, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(given, self.predictions, targets, self.targets)
        mask = counted(context, self.mask, self.targets, targets)
        given, positive = given.astype(jnp.float32), targets.astype(jnp.float32)
        if self.from_logits:
            log_p, log_q = jax.nn.log_sigmoid(given), jax.nn.log_sigmoid(-given)
        else:
            step = jnp.finfo(jnp.float32).eps
            given = given.clip(step, 1 - step)
            log_p, log_q = jnp.log(given), jnp.log1p(-given)
        values = -positive * log_p - (1 - positive) * log_q
        return averaged(values, mask, weights_of(context, self.weights, self.targets, targets))


@dataclasses.dataclass(frozen=True)
class KLDivergence(Averaged):
    """The mean divergence of predicted from target distributions: the sum of ``t (log t - log p)``.

    Attributes:
      predictions: a Context path of logits, float[..., classes]. Log-probabilities are logits, too.
      targets: a Context path of probabilities, in the same shape; each row sums to 1.
      mask: what counts, with the first axes of the targets and at most all but the last; see
        `toolshed.metrics.Mean`.
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        logits, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(logits, self.predictions, targets, self.targets)
        mask = counted(context, self.mask, self.targets, targets, axes=targets.ndim - 1)
        logs, wanted = jax.nn.log_softmax(logits.astype(jnp.float32)), targets.astype(jnp.float32)
        # 0 log 0 is 0, and so is 0 times a log-probability of minus infinity.
        zero = wanted == 0
        terms = jnp.where(zero, 0, wanted * (jnp.log(jnp.where(zero, 1, wanted)) - jnp.where(zero, 0, logs)))
        return averaged(terms.sum(-1), mask)
