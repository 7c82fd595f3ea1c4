"""What it costs to watch all gradients of a run, by how often they are looked at.

    python tests/benchmarks/leaf_watch.py [--model C] [--rounds 9] [--steps 40] [--watches NAME ...]

Runs of one model, one of them without a watch, train in turns, so that what else the machine does hits all of
them. Printed is the median of each run's time by that of the one without, taken round by round; beside it the
same of the time on the CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import contenders
import models

import toolshed

TASKS = {"A": models.tiny_mlp, "B": models.digits_mlp, "C": models.transformer, "D": models.many_leaves}
WATCHES: dict[str, tuple[str, int] | None] = {
    "no watch": None,
    "grads, every 10 steps": ("grads/**", 10),
    "grads, every 50 steps": ("grads/**", 50),
    "params, every 10 steps": ("params/**", 10),
}


def seconds(run: Any, steps: int) -> tuple[float, float]:
    """The time that some steps take, and the CPU's."""
    start, cpu = time.perf_counter(), time.process_time()
    run.train(steps, wait=True)
    return time.perf_counter() - start, time.process_time() - cpu


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times what a watch of all gradients costs.")
    parser.add_argument("--model", choices=TASKS, default="C")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--watches", nargs="+", choices=WATCHES, default=list(WATCHES))
    options = parser.parse_args()
    task = TASKS[options.model]()
    base = contenders._toolshed(task)
    runs = {}  # of one trainer, so that one program steps
    for name in dict.fromkeys(["no watch", *options.watches]):
        watch = WATCHES[name]
        runs[name] = toolshed.Run(base.trainer, base.trainer.make_state(base.model), [task.batch] * 1000)
        if watch is not None:
            runs[name].watch(watch[0], every=watch[1])
        runs[name].train(20, wait=True)
    rounds = [
        {name: seconds(run, options.steps) for name, run in runs.items()} for _ in range(options.rounds)
    ]
    for name in runs:
        wall, cpu = (statistics.median(one[name][i] / one["no watch"][i] for one in rounds) for i in (0, 1))
        print(f"{name:<24} {wall:5.3f} of the time, {cpu:5.3f} of the CPU's")


if __name__ == "__main__":
    main()
