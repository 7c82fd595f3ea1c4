"""What is written to a store and read from it, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

ROWS = 1024
"""Values in a block that is full."""


class Block(NamedTuple):
    """Some neighbouring values of one name on one branch.

    Attributes:
      name: of the values.
      branch: on which they were logged.
      place: the number of the block: its first value is the ``place · ROWS``-th of this name and branch.
      steps: int64[n], increasing, at most `ROWS` of them.
      values: float32[n].
    """

    name: str
    branch: str
    place: int
    steps: Int64[np.ndarray, " n"]
    values: Float32[np.ndarray, " n"]


class Line(NamedTuple):
    """A branch: its name, the branch that it left, and the number of steps done when it left."""

    name: str
    parent: str | None
    start: int


class Record(NamedTuple):
    """Something that happened; the fields of `toolshed.run.Event`."""

    kind: str
    step: int
    branch: str
    time: float
    text: str
    data: Mapping[str, Any]


class News(NamedTuple):
    """What is new since the last time.

    Attributes:
      lines: all branches, in the order in which they began.
      blocks: those with new values, each whole.
      first: how many events came before.
      events: the new ones.
      facts: where the run stands, as JSON can hold it: all, whether new or not.
    """

    lines: tuple[Line, ...]
    blocks: tuple[Block, ...]
    first: int
    events: tuple[Record, ...]
    facts: Mapping[str, Any]
