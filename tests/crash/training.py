"""A training that is killed again and again, and goes on each time from where its checkpoints are.

`python -m tests.crash.training` imports everything, then reads one order in JSON from each line of its
input, forks a process that trains as it says, and prints the process's exit status once it has ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
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

WINDOW, CHECKPOINT_EVERY = 8, 7
_NAME = "killed"
_WALL_CLOCK = ("speed/", "memory/")


class Lesson(NamedTuple):
    """What a process has to do.

    Attributes:
      root: the directory of runs.
      log: a file that gets a line once it trains, one when it is killed, and one when it is done.
      steps: to train.
      edit_at: the step after which a hyperparameter is edited.
      kill_at: the process kills itself once it has come to this step; at -1 it does while it begins; None
        to come to the end.
      delay: seconds from there to the kill, which may fall into anything that happens meanwhile.
    """

    root: str
    log: str
    steps: int
    edit_at: int
    kill_at: int | None
    delay: float


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


def data() -> toolshed.data.Stream:
    """Shuffled batches, read ahead by a thread, each after a while."""
    source = np.random.default_rng(0)
    items = [
        {"x": source.normal(size=4).astype("f"), "y": source.normal(size=1).astype("f")} for _ in range(44)
    ]

    def slowly(batch: Any) -> Any:
        time.sleep(0.002)
        return batch

    return toolshed.data.from_iterable(items).shuffle(16, seed=3).batch(4).map(slowly).prefetch(2)


def train(lesson: Lesson) -> None:
    """Trains to the end, from the beginning or from what there is."""
    log = os.open(lesson.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    eval_data = [zoo.regression_batch()]
    options: dict[str, Any] = {"eval_data": eval_data, "checkpoint_every": CHECKPOINT_EVERY}
    teacher, batches = trainer(lesson.steps), data()
    if lesson.kill_at == -1:
        kill_later(lesson.delay, log, lambda: "while it began")
    if (Path(lesson.root) / _NAME / "run.sqlite").exists():
        run = toolshed.attach(_NAME, teacher, batches, path=lesson.root, **options)
    else:
        run = toolshed.Run(
            teacher, batches, store=lesson.root, name=_NAME, eval_every=WINDOW, seed=5, **options
        )
    os.write(log, f"{run.progress.message or 'begins'}\n".encode())
    kill_at(lesson, run, log)
    if not edited(run):
        run.train(lesson.edit_at - run.progress.step, wait=True)
        run.edit(weight_decay=3e-2)
    run.train(lesson.steps - run.progress.step, wait=True)
    run.save("end", wait=True)
    os.write(log, f"done {digest(run)}\n".encode())


def edited(run: toolshed.Run) -> bool:
    """Whether the edit was made, or will be made again."""
    return any(event.kind == "edited" for event in run.events) or bool(run.timeline.here.again)


def kill_at(lesson: Lesson, run: Any, log: int) -> None:
    """Has this process kill itself a moment after it has come to a step."""
    engine, ready = run._engine, [lesson.kill_at is not None and lesson.kill_at >= 0]
    advance = engine.advance

    def counted(goal: int | None = None) -> None:
        advance(goal)
        if ready[0] and engine.step >= lesson.kill_at:
            ready[0] = False
            kill_later(lesson.delay, log, lambda: f"at step {engine.step} with {len(edits)} edits")

    edits = engine.timeline.here.edits
    engine.advance = counted


def kill_later(seconds: float, log: int, where: Callable[[], str]) -> None:
    """Kills this process in a moment, whatever it does then; writes down where it is."""

    def kill() -> None:
        time.sleep(seconds)
        os.write(log, f"killed {where()}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()


def digest(run: Any) -> str:
    """The SHA-256 of a run's state, of its place in the data, and of its values and edits on the disk."""
    sums = hashlib.sha256()
    for path, leaf in sorted(snapshots.arrays(run.state).items()):
        bits = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        sums.update(path.encode() + np.asarray(bits).tobytes())
    sums.update(json.dumps(run.data_position).encode())
    kept = SavedRun(run.folder)
    edits = [(event.step, event.text) for event in kept.events if event.kind == "edited"]
    sums.update(json.dumps([edits, kept.facts["edits"]]).encode())
    history = kept.history
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
