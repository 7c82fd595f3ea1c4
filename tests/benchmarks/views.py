"""What it costs to show a tree, beside plain treescope: time of the first picture, size of its HTML.

    python tests/benchmarks/views.py

Both render to HTML what a notebook would show. toolshed measures every array for it; treescope, without
its array autovisualizer, summarises them. Medians of seven, after one to compile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import treescope
from penzai.models.simple_mlp import MLP

import toolshed

ROUNDS = 7


def tree_of(leaves: int) -> Any:
    """Blocks of ten arrays of 32 by 32."""
    return {
        f"block_{i}": {f"w{j}": jnp.full((32, 32), 0.1 * j) for j in range(min(10, leaves))}
        for i in range(max(1, leaves // 10))
    }


def model_of(layers: int) -> Any:
    """A penzai model of two arrays a layer."""
    return MLP.from_config(jax.random.key(0), [32] * (layers + 1))


def timed(show: Callable[[Any], str], tree: Any, rounds: int) -> tuple[float, int]:
    """Seconds, the median of some rounds, and bytes of the HTML."""
    size, times = len(show(tree).encode()), []
    for _ in range(rounds):
        start = time.perf_counter()
        show(tree)
        times.append(time.perf_counter() - start)
    return statistics.median(times), size


def row(name: str, tree: Any, rounds: int) -> str:
    """A line of the table; treescope is given one round where it takes long."""
    ours = timed(lambda value: toolshed.show(value).html, tree, rounds)
    few = 1 if len(jax.tree.leaves(tree)) >= 1000 else 3
    plain = timed(treescope.render_to_html, tree, few)
    cells = [f"{seconds:.2f} s, {size / 1000:,.0f} kB" for seconds, size in (ours, plain)]
    return f"| {name} | {cells[0]} | {cells[1]} |"


def main() -> None:
    """Prints the table."""
    print("| | `toolshed.show` | plain treescope |\n| --- | ---: | ---: |")
    for leaves in (10, 1_000, 10_000):
        print(row(f"dict, {leaves:,} arrays", tree_of(leaves), ROUNDS), flush=True)
    for layers in (5, 500):
        print(row(f"penzai model, {2 * layers:,} arrays", model_of(layers), ROUNDS), flush=True)


if __name__ == "__main__":
    main()
