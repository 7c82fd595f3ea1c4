"""What is known of one leaf, in numbers; and of several together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int64

from toolshed.insight import measure
from toolshed.insight.leaves import NUMBERS, Leaf


def _edges() -> np.ndarray:
    magnitudes = 2.0 ** (measure.SMALLEST + 2 * np.arange(measure.BINS_A_SIGN - 1))
    return np.concatenate([[-np.inf], -magnitudes[::-1], [0, 0], magnitudes, [np.inf]])


HISTOGRAM_EDGES: np.ndarray = _edges()
"""The borders of the histogram's 49 bins, float64[50]; the same for every array.

Bins are symmetric in sign and logarithmic in magnitude, by factors of 4. The one in the middle, between
0 and 0, holds the exact zeros. Beside it are all magnitudes below 2⁻³⁰ (about 1e-9), and at either end
those from 2¹⁴ (16,384) on. A value on a border belongs to the bin of the larger magnitudes.
"""

_SUMS = ("count", "bytes", "zeros", "nan", "posinf", "neginf")


@dataclasses.dataclass(frozen=True)
class LeafSummary:
    """What is known of one leaf, or of several together.

    ``norm`` to ``absmax`` are over the finite values alone, since ``nan``, ``posinf`` and ``neginf`` tell
    of the others; they are NaN where there is no finite value. Integers and truth values are taken as
    numbers. Complex values are taken by their magnitude; one with a NaN in either part counts as NaN.

    Attributes:
      path: where the leaf is.
      kind: ``"numbers"``; or why there are no statistics: ``"key"`` (random keys), ``"deleted"`` (donated
        to a compiled step), ``"traced"``, ``"abstract"`` (a shape without values), ``"other"``.
      description: dtype and shape in one word.
      shape: of the array.
      count: number of values.
      bytes: memory that they take.
      norm: L2 norm, √Σx².
      rms: √(Σx²/n).
      mean: Σx/n.
      std: √(Σ(x-mean)²/n).
      min: smallest.
      max: largest.
      absmax: largest magnitude.
      zeros: how many are exactly 0.
      nan: how many are NaN.
      posinf: how many are +∞.
      neginf: how many are -∞.
      histogram: how many finite values lie in each bin between `HISTOGRAM_EDGES`, int64[49].
    """

    path: str
    kind: str
    description: str
    shape: tuple[int, ...]
    count: int
    bytes: int
    norm: float = math.nan
    rms: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    min: float = math.nan
    max: float = math.nan
    absmax: float = math.nan
    zeros: int = 0
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    histogram: Int64[np.ndarray, "49"] = dataclasses.field(
        default_factory=lambda: np.zeros(measure.BINS, np.int64), repr=False, compare=False
    )

    @property
    def sparsity(self) -> float:
        """The share of values that are exactly 0; NaN where there are no values."""
        numbers = int(self.histogram.sum()) + self.nonfinite
        return self.zeros / numbers if numbers else math.nan

    @property
    def nonfinite(self) -> int:
        """How many values are NaN or infinite."""
        return self.nan + self.posinf + self.neginf

    @property
    def concerns(self) -> list[str]:
        """What is not finite, in words: ``["3 NaN", "1 +∞"]``."""
        counts = ((self.nan, "NaN"), (self.posinf, "+∞"), (self.neginf, "-∞"))
        return [f"{count:,} {name}" for count, name in counts if count]

    @property
    def finite(self) -> bool:
        """True if no value is NaN or infinite."""
        return not self.nonfinite


def summarize(path: str, leaf: Leaf, words: np.ndarray | None) -> LeafSummary:
    """What is known of a leaf.

    Args:
      path: where it is.
      leaf: the leaf.
      words: as `toolshed.insight.measure` gave them, or None where nothing was measured.
    """
    known = (path, leaf.kind, leaf.description, leaf.shape, leaf.count, leaf.bytes)
    if words is None:
        return LeafSummary(*known)
    form = measure.DOUBLE if words.itemsize == 8 else measure.SINGLE
    counts = words[measure.COUNTS :].astype(np.int64)
    histogram = counts[: measure.BINS]
    rest = {
        "zeros": int(histogram[measure.BINS_A_SIGN]),
        "nan": int(words[measure.NAN]),
        "posinf": int(words[measure.POSITIVE_INFINITY]),
        "neginf": int(words[measure.NEGATIVE_INFINITY]),
        "histogram": histogram,
    }
    n = int(histogram.sum())
    if not n:
        return LeafSummary(*known, **rest)
    floats = words[: measure.EXPONENT].view(form.floating).astype(np.float64)
    mean, squares, deviations, least, largest = map(float, floats)
    power = int(words[measure.EXPONENT]) - form.bias
    return LeafSummary(
        *known,
        norm=math.ldexp(math.sqrt(squares), power),
        rms=math.ldexp(math.sqrt(squares / n), power),
        mean=math.ldexp(mean, power),
        std=math.ldexp(math.sqrt(deviations / n), power),
        min=least,
        max=largest,
        absmax=max(abs(least), abs(largest)),
        **rest,
    )


def combine(path: str, summaries: Iterable[LeafSummary]) -> LeafSummary:
    """Several leaves as if their values stood in one array; those without numbers only add their size."""
    summaries = list(summaries)
    some = [leaf for leaf in summaries if leaf.histogram.any()]
    sums: dict[str, Any] = {name: sum(getattr(leaf, name) for leaf in summaries) for name in _SUMS}
    kinds = {leaf.kind for leaf in summaries}
    known = (path, kinds.pop() if len(kinds) == 1 else NUMBERS, f"{len(summaries)} leaves", ())
    if not some:
        return LeafSummary(*known, **sums)
    n = np.array([leaf.histogram.sum() for leaf in some])
    mean = float(np.average([leaf.mean for leaf in some], weights=n))
    # A leaf's values deviate from the common mean by its own deviation and by that of its mean.
    deviations = np.array([math.hypot(leaf.std, leaf.mean - mean) for leaf in some])
    scale = deviations.max() or 1.0
    norm = math.hypot(*(leaf.norm for leaf in some))
    return LeafSummary(
        *known,
        norm=norm,
        rms=norm / math.sqrt(n.sum()),
        mean=mean,
        std=float(scale * math.sqrt(np.average((deviations / scale) ** 2, weights=n))),
        min=min(leaf.min for leaf in some),
        max=max(leaf.max for leaf in some),
        absmax=max(leaf.absmax for leaf in some),
        histogram=np.stack([leaf.histogram for leaf in some]).sum(axis=0),
        **sums,
    )
