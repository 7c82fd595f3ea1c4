"""What a history costs: to write a million values, to look at any part of them, and to keep them.

    python tests/benchmarks/history.py [--values 1000000] [--windows 200]

Beside it stands what one would do without: a Python list of (step, value) pairs, and for a window a look
at all values with numpy. Ratios to those hold on other machines, too.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toolshed.run import History

BLOCK, POINTS = 100, 2000
NAME = "train/loss"


def make_kinds(number: int, rng: np.random.Generator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of three kinds of series."""
    values = rng.standard_normal(number).astype(np.float32)
    holes = values.copy()
    holes[rng.random(number) < 0.01] = np.nan
    return {
        "every step": (np.arange(1, number + 1), values),
        "now and then": (np.cumsum(rng.integers(1, 50, number)), values),
        "every step, 1 % NaN": (np.arange(1, number + 1), holes),
    }


def write(steps: np.ndarray, values: np.ndarray) -> tuple[History, float]:
    """A history of some values, written in blocks, and the seconds that took."""
    history = History()
    start = time.perf_counter()
    for at in range(0, len(steps), BLOCK):
        history.append(NAME, steps[at : at + BLOCK], values[at : at + BLOCK])
    return history, time.perf_counter() - start


def write_list(steps: np.ndarray, values: np.ndarray) -> tuple[list[Any], float]:
    """The same as a list of pairs."""
    pairs: list[Any] = []
    start = time.perf_counter()
    for at in range(0, len(steps), BLOCK):
        block = zip(steps[at : at + BLOCK].tolist(), values[at : at + BLOCK].tolist(), strict=True)
        pairs.extend(block)
    return pairs, time.perf_counter() - start


def bytes_of_list(pairs: list[Any]) -> float:
    """Bytes a value: the place in the list, the pair, the int and the float."""
    some = pairs[1000:2000]
    each = [sys.getsizeof(pair) + sys.getsizeof(pair[0]) + sys.getsizeof(pair[1]) for pair in some]
    return sys.getsizeof(pairs) / len(pairs) + statistics.mean(each)


def look_at_all(steps: np.ndarray, values: np.ndarray, start: int, stop: int) -> Any:
    """The extremes of each column by looking at every value between two steps."""
    first, last = np.searchsorted(steps, [start, stop + 1])
    steps, values = steps[first:last], values[first:last]
    column = (steps - start) * POINTS // (stop - start + 1)
    cuts = np.flatnonzero(np.diff(column, prepend=-1))
    return np.fmin.reduceat(values, cuts), np.fmax.reduceat(values, cuts)


def milliseconds(work: Callable[[], Any], tries: int = 5) -> float:
    """How long one call takes, in the best of some tries."""
    times = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def zooms(steps: np.ndarray, number: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Windows of all sizes from a thousandth to all, anywhere; the last is all."""
    first, last = int(steps[0]), int(steps[-1])
    found = []
    for _ in range(number):
        width = int((last - first) * 10 ** rng.uniform(-3, 0))
        start = first + int(rng.integers(0, last - first - width + 1))
        found.append((start, start + width))
    return [*found, (first, last)]


def measure(kind: str, steps: np.ndarray, values: np.ndarray, windows: int, rng: np.random.Generator) -> str:
    """A row of the table."""
    history, written = write(steps, values)
    pairs, listed = write_list(steps, values)
    times = [
        milliseconds(functools.partial(history.window, NAME, start, stop, POINTS))
        for start, stop in zooms(steps, windows, rng)
    ]
    whole = history.bounds()
    every = milliseconds(functools.partial(look_at_all, steps, values, *whole))
    size, plain = history.nbytes / len(steps), bytes_of_list(pairs)
    cells = (
        kind,
        f"{written / len(steps) * 1e6:.2f} ({written / listed:.2f})",
        f"{statistics.median(times):.2f}",
        f"{max(times):.2f}",
        f"{times[-1]:.2f} ({times[-1] / every:.3f})",
        f"{size:.1f} ({size / plain:.2f})",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times writing and reading a history, and counts its bytes.")
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--windows", type=int, default=200)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"### {options.values:,} values in blocks of {BLOCK}; windows of {POINTS:,} columns\n")
    print("In brackets: times what a list of pairs takes, or a look at all values.\n")
    print("| series | µs to write a value | ms, median window | longest | all of it | bytes a value |")
    print(f"|---|{'---:|' * 5}")
    for kind, (steps, values) in make_kinds(options.values, rng).items():
        print(measure(kind, steps, values, options.windows, rng))


if __name__ == "__main__":
    main()
