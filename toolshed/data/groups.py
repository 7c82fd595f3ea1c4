"""Examples in groups that have an order, such as eras: random runs of neighbours, and a split by order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from toolshed.data.arrays import fingerprint
from toolshed.data.node import GROUPS, Node, Position, Reader, choice, generator, whole
from toolshed.data.streams import Stream
from toolshed.errors import DataError
from toolshed.paths import describe


class GroupSequence(NamedTuple):
    """Consecutive groups and their examples.

    Attributes:
      groups: the labels, ascending, int[length].
      sizes: number of examples of each group, int[length].
      indices: the examples, group by group, each group in the order of the data set, int[sum of sizes].
    """

    groups: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray

    def split(self) -> list[np.ndarray]:
        """The examples of each group by itself."""
        return np.split(self.indices, np.cumsum(self.sizes)[:-1])


class Split(NamedTuple):
    """Examples to train and to validate on, as ascending indices, int[n]."""

    train: np.ndarray
    validation: np.ndarray


class GroupSequencer(Stream):
    """A stream of random sequences of 1 to ``max_length`` consecutive groups, in order.

    Groups are consecutive when no other label lies between theirs. Sequences are drawn independently, so
    they overlap, and an epoch may leave a group out.

    - ``"uniform-start"`` draws the length uniformly from 1 to ``max_length``, and then the start
      uniformly from those that leave room for it. Groups near the ends are in fewer sequences.
    - ``"coverage-uniform"`` draws a length l likewise, and then a start uniformly from the l - 1 places
      before the first group to the last group; what lies outside the data is cut off. Of these G + l - 1
      starts exactly l cover any one of the G groups, so each group is covered with the same probability,
      the mean of l / (G + l - 1) over l. In exchange sequences are shorter: those at the ends are cut.

    Equal seeds give equal sequences on every platform.

    Args:
      groups: the label of each example, int[examples], in any order.
      max_length: groups in the longest sequence; more than there are means all.
      seed: of the drawing, together with the epoch's number.
      sampling: how lengths and starts are drawn.
      sequences: sequences in an epoch; by default as many as there are groups.

    Raises:
      DataError: the labels are no whole numbers or none, or an argument is out of range.

    Example:
      >>> from toolshed.data import GroupSequencer
      >>> for sequence in GroupSequencer([3, 3, 7, 9], max_length=2, seed=1, sequences=2):
      ...     print("groups", *sequence.groups, "with examples", *sequence.indices)
      groups 9 with examples 3
      groups 3 with examples 0 1
    """

    def __init__(
        self,
        groups: Sequence[int] | np.ndarray,
        max_length: int,
        seed: int = 0,
        *,
        sampling: Literal["uniform-start", "coverage-uniform"] = "uniform-start",
        sequences: int | None = None,
    ):
        labels = _labels(groups)
        super().__init__(GroupSource(labels, max_length, seed, sampling, sequences))


class GroupSource(Node):
    """Random sequences of groups; see `GroupSequencer`."""

    def __init__(self, labels: np.ndarray, max_length: int, seed: int, sampling: str, sequences: int | None):
        self._labels = labels
        self._groups, self._sizes = np.unique(labels, return_counts=True)
        self._by_group = np.argsort(labels, kind="stable")
        self._ends = np.concatenate([[0], np.cumsum(self._sizes)])
        self._max_length = whole("max_length", max_length, 1)
        self._seed = whole("seed", seed, 0)
        self._sampling = choice("sampling", sampling, ("uniform-start", "coverage-uniform"))
        self._sequences = len(self._groups) if sequences is None else whole("sequences", sequences, 1)
        self._fingerprint: str | None = None

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0}

    def read(self, at: Position) -> Reader:
        epoch = at["epoch"]
        for index in range(at["index"], self._sequences):
            first, end = self._draw(generator(GROUPS, self._seed, epoch, index))
            examples = self._by_group[self._ends[first] : self._ends[end]]
            sequence = GroupSequence(
                self._groups[first:end].copy(), self._sizes[first:end].copy(), examples.copy()
            )
            yield sequence, {"epoch": epoch, "index": index + 1}

    def _draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """The number of the first group of a sequence, and the one after the last."""
        count = len(self._groups)
        length = int(rng.integers(1, min(self._max_length, count), endpoint=True))
        if self._sampling == "uniform-start":
            first = int(rng.integers(0, count - length, endpoint=True))
            return first, first + length
        first = int(rng.integers(1 - length, count - 1, endpoint=True))
        return max(first, 0), min(first + length, count)

    @property
    def length(self) -> int:
        return self._sequences

    @property
    def label(self) -> str:
        return (
            f"GroupSequencer({len(self._labels)} examples in {len(self._groups)} groups,"
            f" max_length={self._max_length}, seed={self._seed}, sampling={self._sampling!r},"
            f" sequences={self._sequences})"
        )

    @property
    def identity(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint({"groups": self._labels})
        return f"{self.label} with data {self._fingerprint}"


def train_validation_split(groups: Sequence[int] | np.ndarray, validation_groups: int, gap: int = 0) -> Split:
    """The examples of the last groups for validation, and those before for training.

    Args:
      groups: the label of each example, int[examples], in any order.
      validation_groups: how many of the last groups validate, at least 1.
      gap: how many groups before those are in neither part, so that what neighbouring groups share does
        not leak.

    Raises:
      DataError: nothing is left to train on, or an argument is out of range.
    """
    labels = _labels(groups)
    whole("validation_groups", validation_groups, 1)
    whole("gap", gap, 0)
    known = np.unique(labels)
    left = len(known) - validation_groups - gap
    if left < 1:
        raise DataError(
            f"Nothing is left to train on: of {len(known)} groups {validation_groups} are for validation"
            f" and {gap} are the gap. Take fewer of either."
        )
    last, first = known[left - 1], known[left + gap]
    return Split(np.flatnonzero(labels <= last), np.flatnonzero(labels >= first))


def _labels(groups: Any) -> np.ndarray:
    labels = np.asarray(groups)
    if labels.ndim != 1 or (labels.size and labels.dtype.kind not in "iu"):
        raise DataError(
            f"groups is {describe(labels)}; expected a whole number for each example, int[examples]."
        )
    if labels.size == 0:
        raise DataError("groups holds no example.")
    return labels
