"""Which checkpoints stay: pure rules over manifests. They delete nothing themselves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from toolshed import paths
from toolshed.checkpoints.manifest import Manifest
from toolshed.errors import CheckpointError


class Best(NamedTuple):
    """The ``n`` checkpoints with the best values of a metric. NaN and infinity are never best.

    Attributes:
      metric: its name.
      mode: ``"min"`` or ``"max"``: which is better.
      n: how many.
    """

    metric: str
    mode: str = "min"
    n: int = 1


@dataclasses.dataclass(frozen=True)
class Retention:
    """What is kept; whatever one rule keeps is kept. With no rule at all everything is.

    Attributes:
      keep_last: how many of those written last.
      keep_every: those whose step is a multiple of this.
      keep_best: those with the best values of a metric.
      keep_tagged: those with a tag.
    """

    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: Best | None = None
    keep_tagged: bool = True

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every"):
            value = getattr(self, name)
            if value is not None:
                _check_whole(name, value)
        best = self.keep_best
        if best is not None:
            check_mode(best.mode)
            _check_whole("keep_best's n", best.n)

    @property
    def keeps_all(self) -> bool:
        """True if there is no rule."""
        return self.keep_last is None and self.keep_every is None and self.keep_best is None

    def discarded(self, manifests: Iterable[Manifest], written: Manifest) -> list[Manifest]:
        """Those of the whole checkpoints that may go, now that another one was written.

        One that was written again under the same step goes unless it has a tag; then the newer one stays,
        too. The one just written stays in any case, so there is always a whole one.
        """
        manifests = list(manifests)
        newest = {manifest.step: manifest.generation for manifest in sorted(manifests, key=_generation)}
        current = [manifest for manifest in manifests if newest[manifest.step] == manifest.generation]
        kept = {written.generation} | self._kept(current)
        if self.keep_tagged or self.keeps_all:
            kept |= {manifest.generation for manifest in manifests if manifest.tags}
        # where an older one of a step stays, the newest does, whose place it would take
        kept |= {newest[manifest.step] for manifest in manifests if manifest.generation in kept}
        return [manifest for manifest in manifests if manifest.generation not in kept]

    def _kept(self, manifests: list[Manifest]) -> set[int]:
        if self.keeps_all:
            return {manifest.generation for manifest in manifests}
        kept: set[int] = set()
        if self.keep_last is not None:
            kept |= set(sorted(map(_generation, manifests))[-self.keep_last :])
        if self.keep_every is not None:
            kept |= {manifest.generation for manifest in manifests if manifest.step % self.keep_every == 0}
        if self.keep_best is not None:
            best = ranked(manifests, self.keep_best.metric, self.keep_best.mode)
            kept |= set(map(_generation, best[: self.keep_best.n]))
        return kept


def check_rules(keep_last: Any, keep_every: Any, keep_best: Any, keep_tagged: Any) -> Retention:
    """The rules as they are given to a repository; ``keep_best`` may be a plain tuple or a metric's name.

    Raises:
      CheckpointError: one makes no sense.
    """
    if isinstance(keep_best, str):
        keep_best = (keep_best,)
    if keep_best is not None:
        is_fitting = isinstance(keep_best, tuple) and 0 < len(keep_best) <= 3
        if not is_fitting or not isinstance(keep_best[0], str):
            raise CheckpointError(
                f"keep_best is {keep_best!r}; expected a metric, 'min' or 'max', and how many:"
                " ('eval/loss', 'min', 2)."
            )
        keep_best = Best(*keep_best)
    return Retention(keep_last, keep_every, keep_best, bool(keep_tagged))


def ranked(manifests: Iterable[Manifest], metric: str, mode: str) -> list[Manifest]:
    """Those with a finite value of the metric, the best first; of equal ones the newer first."""
    check_mode(mode)
    sign = 1 if mode == "min" else -1
    known = [manifest for manifest in manifests if math.isfinite(manifest.metrics.get(metric, math.nan))]
    return sorted(known, key=lambda manifest: (sign * manifest.metrics[metric], -manifest.generation))


def check_mode(mode: Any) -> None:
    """Raises `CheckpointError` unless this says which values are better."""
    if mode not in ("min", "max"):
        raise CheckpointError(f"mode is {mode!r}; expected 'min' or 'max'.")


def _generation(manifest: Manifest) -> int:
    return manifest.generation


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{name} is {paths.describe(value)}; expected a whole number from 1.")
