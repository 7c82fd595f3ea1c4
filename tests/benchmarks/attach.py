"""How long it takes to attach to a run of a million logged steps, and to see its chart.

    python tests/benchmarks/attach.py [--steps 1000000]

A run is kept with four values of each step; another process attaches to it. Timed are `toolshed.attach`
itself, the scene that the dashboard sends to a front end, and the picture.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import toolshed
from tests.run.kept import data, trainer
from toolshed.live import picture, scene

NAMES = ("train/loss", "optim/learning_rate", "train/mine", "train/other")


def keep(root: str, steps: int) -> None:
    """Keeps a run with values of so many steps."""
    teacher = trainer(optax.sgd(1e-2))
    state = teacher.init(jax.random.key(0)).replace(step=jnp.int32(steps))
    run = toolshed.Run(teacher, state, data(), store=root, name="long", checkpoint_every=0)
    numbers = np.random.default_rng(0).normal(size=steps).astype("f")
    for name in NAMES:
        run.history.append(name, np.arange(1, steps + 1), numbers)
    run.save(wait=True)


def main() -> None:
    """Prints a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as root:
        process = multiprocessing.get_context("spawn").Process(target=keep, args=(root, steps))
        process.start()
        process.join()
        size = sum(file.stat().st_size for file in Path(root).rglob("run.sqlite*"))
        teacher, batches = trainer(optax.sgd(1e-2)), data()
        begin = time.perf_counter()
        run = toolshed.attach("long", teacher, batches, path=root)
        attached = time.perf_counter()
        seen = scene.whole(run.history)
        sent = time.perf_counter()
        picture.draw(scene.head(run), seen, scene.marks(run.events, run.history), {})
        drawn = time.perf_counter()
        assert run.progress.step == steps
        assert len(seen.lines) >= len(NAMES)
        print(f"{steps:,} steps, {len(NAMES)} values each, {size / 1e6:.0f} MB in the store")
        print(f"attach {attached - begin:.2f} s, scene {sent - attached:.3f} s, picture {drawn - sent:.3f} s")


if __name__ == "__main__":
    main()
