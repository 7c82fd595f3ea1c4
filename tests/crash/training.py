"""A training that is killed again and again, and goes on each time from where its checkpoints are.

`python -m tests.crash.training` imports everything, then reads one order in JSON from each line of its
input, forks a process that trains as it says, and prints the process's exit status once it has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from orbax.checkpoint import v1 as orbax  # noqa: F401  (loaded here, so that the forked processes have it)

import toolshed
from tests import zoo
from tests.crash.worker import serve
from toolshed.run import SavedRun
from toolshed.state import snapshot as snapshots

EDIT_AT, WINDOW, CHECKPOINT_EVERY = 100, 8, 7
_NAME = "killed"
_WALL_CLOCK = ("speed/", "memory/")


class Lesson(NamedTuple):
    """What a process has to do.

    Attributes:
      root: the directory of runs.
      log: a file that gets a line once it trains, and one when it is done.
      seconds: that each batch takes to be read.
      steps: to train.
    """

    root: str
    log: str
    seconds: float
    steps: int


def trainer(steps: int) -> toolshed.Trainer:
    """A model with dropout; adamw on a cosine, clipped; gradients accumulated; metrics over windows."""
    schedule = optax.cosine_decay_schedule(3e-3, steps)
    adamw = optax.inject_hyperparams(optax.adamw)(learning_rate=schedule, weight_decay=1e-3)
    return toolshed.Trainer(
        zoo.random_stream().model,
        optax.chain(optax.clip_by_global_norm(0.5), adamw),
        zoo.regression_loss,
        metrics=toolshed.metrics.collection(error=toolshed.metrics.MAE()),
        gradient_strategy=toolshed.gradients.Accumulate(2),
    )


def data(seconds: float) -> toolshed.data.Stream:
    """Shuffled batches, read ahead by a thread, each after a while."""
    source = np.random.default_rng(0)
    items = [
        {"x": source.normal(size=4).astype("f"), "y": source.normal(size=1).astype("f")} for _ in range(44)
    ]

    def slowly(batch: Any) -> Any:
        time.sleep(seconds)
        return batch

    return toolshed.data.from_iterable(items).shuffle(16, seed=3).batch(4).map(slowly).prefetch(2)


def train(lesson: Lesson) -> None:
    """Trains to the end, from the beginning or from what there is."""
    log = os.open(lesson.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    eval_data = [zoo.regression_batch()]
    options: dict[str, Any] = {"eval_data": eval_data, "checkpoint_every": CHECKPOINT_EVERY}
    teacher, batches = trainer(lesson.steps), data(lesson.seconds)
    if (Path(lesson.root) / _NAME / "run.sqlite").exists():
        run = toolshed.attach(_NAME, teacher, batches, path=lesson.root, **options)
    else:
        run = toolshed.Run(
            teacher, batches, store=lesson.root, name=_NAME, eval_every=WINDOW, seed=5, **options
        )
    is_edited = any(event.kind == "edited" for event in run.events) or run.timeline.here.again
    begins = run.events[-1].text if run.events else "begins"
    for goal in (EDIT_AT, lesson.steps)[1 if is_edited else 0 :]:
        run.train(min(1, goal - run.progress.step), wait=True)  # compiles
        if begins:
            os.write(log, f"{begins}\n".encode())
            begins = ""
        run.train(goal - run.progress.step, wait=True)
        if goal == EDIT_AT:
            run.edit(weight_decay=3e-2)
    run.save("end", wait=True)
    os.write(log, f"done {digest(run)}\n".encode())


def digest(run: Any) -> str:
    """The SHA-256 of a run's state, of its place in the data, and of its values as they are on the disk."""
    sums = hashlib.sha256()
    for path, leaf in sorted(snapshots.arrays(run.state).items()):
        bits = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        sums.update(path.encode() + np.asarray(bits).tobytes())
    sums.update(json.dumps(run.data_position).encode())
    history = SavedRun(run.folder).history
    for name in sorted(history.names):
        if not name.startswith(_WALL_CLOCK):
            steps, values = history.series(name)
            sums.update(name.encode() + steps.tobytes() + values.tobytes())
    return sums.hexdigest()


def begin(line: str) -> tuple[str, Callable[[], None]]:
    """The file for errors and the task of a lesson."""
    lesson = Lesson(**json.loads(line))
    return f"{lesson.log}.errors", lambda: train(lesson)


if __name__ == "__main__":
    serve(begin)
