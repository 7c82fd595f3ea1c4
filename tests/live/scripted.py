"""A run whose state is set by hand: a real one cannot be brought to a million steps in a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from toolshed.run import Event, History, LeafHistory, Progress

RUN_S_OWN = ("optim/learning_rate", "optim/grad_norm", "optim/update_norm", "speed/steps_per_second")


class ScriptedRun:
    """What the views use of a Run."""

    def __init__(self, name: str = "digits", **progress: Any):
        self.name = name
        self.history = History()
        self.events: tuple[Event, ...] = ()
        self.hyperparameters: dict[str, float] = {"learning_rate": 1e-3}
        self.can_save = False
        self.watched: dict[str, LeafHistory] = {}
        self.progress = Progress(**{**START, **progress})
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.listeners: list[Callable[[Event], None]] = []

    @property
    def status(self) -> str:
        return self.progress.status

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def request(self, action: str, **arguments: Any) -> None:
        self.asked.append((action, arguments))

    def set(self, **progress: Any) -> None:
        """Changes the progress, and says so."""
        self.progress = dataclasses.replace(self.progress, **progress)
        self.tell(event("status", self.progress.step))

    def happen(self, one: Event) -> None:
        """Adds an event, and says so."""
        self.events += (one,)
        self.tell(one)

    def tell(self, one: Event) -> None:
        for listener in list(self.listeners):
            listener(one)


START: dict[str, Any] = {
    **dict.fromkeys(["goal", "epoch", "remaining", "steps_per_second", "examples_per_second"]),
    **dict.fromkeys(["device_bytes", "device_limit"]),
    "status": "ready",
    "message": "",
    "step": 0,
    "elapsed": 0.0,
    "branch": "main",
    "snapshot_bytes": 0,
    "snapshot_budget": 64_000_000,
}


def event(kind: str, step: int, text: str = "", branch: str = "main", **data: Any) -> Event:
    """An event at a step."""
    return Event(kind=kind, step=step, branch=branch, time=0.0, text=text, data=data)


def log_training(history: History, start: int, stop: int, *, scale: float = 1.0, seed: int = 0) -> None:
    """Curves as of a training, for the steps after ``start`` up to ``stop``."""
    noise = np.random.default_rng(seed)
    steps = np.arange(start + 1, stop + 1)
    span = max(stop, 200)
    decay = np.exp(-steps / (span / 4))
    history.append("train/loss", steps, scale * (2 * decay + 0.1 + 0.05 * noise.gamma(2.0, 1.0, len(steps))))
    rise = 1 - decay + 0.03 * noise.standard_normal(len(steps))
    history.append("train/accuracy", steps, np.clip(rise, 0, 1))
    seldom = steps[steps % max(span // 20, 1) == 0]
    history.append("eval/loss", seldom, scale * (2 * np.exp(-seldom / (span / 4)) + 0.3))
    history.append("eval/accuracy", seldom, 0.95 * (1 - np.exp(-seldom / (span / 5))))
    for name in RUN_S_OWN:
        history.append(name, steps, np.abs(1 + 0.3 * noise.standard_normal(len(steps))) * decay)


def training(steps: int = 1234, goal: int | None = 5000, name: str = "digits") -> ScriptedRun:
    """A run in the middle of its training."""
    run = ScriptedRun(
        name, status="training", step=steps, goal=goal, epoch=2.37, elapsed=12.6, remaining=63.0,
        steps_per_second=812.4, examples_per_second=51993.6, snapshot_bytes=12_300_000,
    )  # fmt: skip
    log_training(run.history, 0, steps)
    run.events = (
        event("edited", steps // 3, "learning_rate 0.001 → 0.0003", name="learning_rate"),
        event("saved", steps // 2, "saved as best", tag="best"),
    )
    return run


def watch(run: ScriptedRun, rows: int, steps: Any, pattern: str = "grads/**", every: int = 1) -> LeafHistory:
    """Watches so many gradients, which shrink with the steps and grow with the rows."""
    paths = tuple(f"{pattern.partition('/')[0]}/model/layer_{row}/Linear.weights" for row in range(rows))
    seen = run.watched[pattern] = LeafHistory(pattern, every, ("rms", "absmax"), paths, run.history)
    size = 10.0 ** (-3 + 3 * np.arange(rows) / rows)
    for step in steps:
        rms = (size / (1 + step / 200)).astype(np.float32)
        seen.append(run.history.branch, int(step), np.stack([rms, 3 * rms], axis=1))
    return seen


def branched() -> ScriptedRun:
    """A run taken back twice: main, b1 that left it at step 300, and the current b2 that left it at 500."""
    run = ScriptedRun(
        status="paused", message="Paused by a person.", step=900, goal=2000, branch="b2", elapsed=40.0
    )
    log_training(run.history, 0, 1000)
    run.history.begin_branch("b1", at=300)
    log_training(run.history, 300, 800, scale=1.5)
    run.history.switch("main")
    run.history.begin_branch("b2", at=500)
    log_training(run.history, 500, 900, scale=0.7)
    run.events = (
        event("branched", 300, "b1 leaves main", "b1", name="b1", parent="main"),
        event("branched", 500, "b2 leaves main", "b2", name="b2", parent="main"),
        event("edited", 700, "learning_rate 0.001 → 0.01", "main", name="learning_rate"),
    )
    return run
