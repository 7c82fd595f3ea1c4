"""Statistics of many arrays over time: what a watch on a run has seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from toolshed.errors import RunError
from toolshed.run.history import History

MOST_ROWS = 1000


def _share(hits: jax.Array) -> jax.Array:
    return hits.mean(dtype=jnp.float32)


STATISTICS: dict[str, Callable[[Inexact[Array, "..."]], jax.Array]] = {
    "rms": lambda x: jnp.sqrt(jnp.mean(jnp.square(jnp.abs(x)))),
    "norm": lambda x: jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x)))),
    "mean": lambda x: jnp.mean(x.real),
    "std": jnp.std,
    "absmax": lambda x: jnp.max(jnp.abs(x)),
    "zeros": lambda x: _share(x == 0),
    "nonfinite": lambda x: _share(~jnp.isfinite(x)),
}
"""What a watch can take of an array, by name; ``zeros`` and ``nonfinite`` are shares of its values."""


class LeafHistory:
    """What ``run.watch`` has seen: some statistics of the arrays that match a pattern, by step and branch.

    It grows while the run trains, and can be read from any thread. Memory is bounded: past 1,000 rows a
    branch, every other row is dropped, and from then on every other one that comes.

    Attributes:
      pattern: which arrays, as paths into a `toolshed.Context`.
      every: in every how many steps.
      statistics: what is taken of each, see `toolshed.run.STATISTICS`.
      paths: the arrays that match.
      version: grows with every row.
    """

    def __init__(
        self, pattern: str, every: int, statistics: tuple[str, ...], paths: tuple[str, ...], history: History
    ):
        self.pattern, self.every, self.statistics, self.paths = pattern, every, statistics, paths
        self.version = 0
        self._history = history
        self._rows: dict[str, dict[int, np.ndarray]] = {}  # by branch and step, [leaves, statistics]
        self._gap: dict[str, int] = {}  # steps between two rows of a branch
        self._lock = threading.Lock()

    def append(self, branch: str, step: int, row: Float[np.ndarray, "leaves statistics"]) -> None:
        """Takes in the values of one step. Called on one thread."""
        with self._lock:
            rows = self._rows.setdefault(branch, {})
            gap = self._gap.setdefault(branch, self.every)
            if (step - 1) % gap:
                return
            rows[step] = row
            if len(rows) > MOST_ROWS:
                self._gap[branch] = gap = 2 * gap
                self._rows[branch] = {number: kept for number, kept in rows.items() if not (number - 1) % gap}
            self.version += 1

    def values(
        self, statistic: str | None = None, branch: str | None = None
    ) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n leaves"]]:
        """One statistic of all arrays over time, on the line that leads to a branch.

        Args:
          statistic: by default the first.
          branch: by default the one that the run is on.

        Returns:
          Steps, int64[n]; and values, float32[n, leaves], in the order of ``paths``.

        Raises:
          RunError: there is no such statistic.
        """
        statistic = self.statistics[0] if statistic is None else statistic
        if statistic not in self.statistics:
            raise RunError(f"This watch has no {statistic!r}; it has {', '.join(self.statistics)}.")
        with self._lock:
            rows = sorted(self._line(branch or self._history.branch))
        steps = np.array([step for step, _ in rows], np.int64)
        column = self.statistics.index(statistic)
        values = [row[:, column] for _, row in rows]
        return steps, np.stack(values) if values else np.zeros((0, len(self.paths)), np.float32)

    def _line(self, branch: str) -> Iterator[tuple[int, np.ndarray]]:
        """The rows of a branch, and of those that it comes from up to where it left them."""
        known = {one.name: one for one in self._history.branches}
        end, name = None, branch
        while name is not None and name in known:
            for step, row in self._rows.get(name, {}).items():
                if end is None or step <= end:
                    yield step, row
            start = known[name].start
            end = start if end is None else min(end, start)
            name = known[name].parent

    def __repr__(self) -> str:
        steps, values = self.values()
        seen = f"{len(steps)} rows, the last of step {steps[-1]:,}" if len(steps) else "nothing seen yet"
        return (
            f"{self.pattern} every {self.every} steps: {', '.join(self.statistics)} of"
            f" {values.shape[1]} arrays; {seen}"
        )
