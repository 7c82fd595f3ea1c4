"""How well scores rank the items of a query.

Each query is a row of scores and one of relevance, [..., items]. Items whose mask is false are in no
ranking; a query none of whose items counts is left out of the mean. A query without a relevant item
counts with 0: mask it to leave it out. No value depends on the order in which tied items happen to lie.

References:
  K. Järvelin and J. Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002. F. McSherry and
  M. Najork, "Computing information retrieval performance measures efficiently in the presence of tied
  scores", 2008.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics.metric import AUTO, Averaged, array, averaged, check_same_shape, counted
from toolshed.paths import describe


@dataclasses.dataclass(frozen=True)
class Ranked(Averaged, abc.ABC):
    """What metrics of rankings share: a mean over queries.

    Attributes:
      predictions: a Context path of scores, float[..., items]; the highest ranks first.
      targets: a Context path of relevance in the same shape: numbers from 0 for `NDCG`; for the others,
        relevant where not 0.
      mask: what counts: queries, bool[...], or items, bool[..., items]; see `toolshed.metrics.Mean`.
      k: how many items from the top are looked at; None for all.
    """

    predictions: str = "preds"
    targets: str = "batch/relevance"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    k: int | None = None

    def __post_init__(self):
        if self.k is not None and self.k < 1:
            raise ToolshedError(f"{type(self).__name__} with k={self.k}; expected a number of items from 1.")

    def state_from(self, context: Any) -> Float32[Array, "2 2"]:
        scores, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(scores, self.predictions, targets, self.targets)
        if not scores.ndim:
            raise ToolshedError(f"{self.predictions} is {describe(scores)}; expected scores [..., items].")
        mask = counted(context, self.mask, self.targets, targets)
        items = scores.shape[-1]
        rows = [rows.reshape(-1, items) for rows in (scores.astype(jnp.float32), targets, mask)]
        return averaged(jax.vmap(self._of_query)(*rows), mask.reshape(-1, items).any(-1))

    @abc.abstractmethod
    def _of_query(self, scores: Any, relevance: Any, mask: Any) -> Float32[Array, ""]:
        """The value of one query."""


@dataclasses.dataclass(frozen=True)
class NDCG(Ranked):
    """Normalised discounted cumulative gain: of relevance over log2 of (1 + rank), as a share of the best.

    Tied items each get the mean discount of their ranks, as in scikit-learn's ``ndcg_score``. The gain is
    the relevance itself; for ``2**relevance - 1`` put that in the batch. Attributes as in `Ranked`.
    """

    def _of_query(self, scores: Any, relevance: Any, mask: Any) -> Float32[Array, ""]:
        gains = jnp.where(mask, relevance, 0).astype(jnp.float32)
        best = self._gain(gains, gains, mask)
        return jnp.where(best > 0, self._gain(scores, gains, mask) / jnp.where(best > 0, best, 1), 0)

    def _gain(self, scores: Any, gains: Any, mask: Any) -> Any:
        above, through = _ranks(scores, mask)
        ranks = jnp.arange(1, len(scores) + 1, dtype=jnp.float32)
        discounts = jnp.where(ranks <= (self.k or len(scores)), 1 / jnp.log2(ranks + 1), 0)
        so_far = jnp.concatenate([jnp.zeros(1), jnp.cumsum(discounts)])
        return (gains * (so_far[through] - so_far[above]) / jnp.maximum(through - above, 1)).sum()


@dataclasses.dataclass(frozen=True)
class MAP(Ranked):
    """Mean average precision: the mean, over a query's relevant items, of the precision at their ranks.

    Tied items all have the last of their ranks. With ``k``, relevant items beyond it add nothing and the
    mean is over as many as could be within it, ``min(k, relevant)``. Attributes as in `Ranked`.
    """

    def _of_query(self, scores: Any, relevance: Any, mask: Any) -> Float32[Array, ""]:
        relevant = mask & (relevance != 0)
        _, rank = _ranks(scores, mask)
        _, found = _ranks(scores, relevant)
        k = self.k or len(scores)
        precision = jnp.where(relevant & (rank <= k), found / jnp.maximum(rank, 1), 0)
        return precision.sum() / jnp.clip(relevant.sum(), 1, k)


@dataclasses.dataclass(frozen=True)
class MRR(Ranked):
    """Mean reciprocal rank: of 1 / the rank of a query's first relevant item, 0 beyond ``k``.

    Tied items all have the last of their ranks. Attributes as in `Ranked`.
    """

    def _of_query(self, scores: Any, relevance: Any, mask: Any) -> Float32[Array, ""]:
        relevant = mask & (relevance != 0)
        _, rank = _ranks(scores, mask)
        within = relevant & (rank <= (self.k or len(scores)))
        return jnp.where(within, 1 / jnp.maximum(rank, 1), 0).max(initial=0.0).astype(jnp.float32)


def _ranks(scores: Any, mask: Any) -> tuple[Any, Any]:
    """For each score, how many of those that count lie above it, and how many above it or level."""
    lowest = jnp.sort(jnp.where(mask, -scores, jnp.inf))
    held = mask.sum()
    above = jnp.searchsorted(lowest, -scores, side="left")
    through = jnp.searchsorted(lowest, -scores, side="right")
    return jnp.minimum(above, held), jnp.minimum(through, held)
