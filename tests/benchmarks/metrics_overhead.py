"""What metrics cost in a training step: five and six on model B, as a ratio to the same step without.

    python tests/benchmarks/metrics_overhead.py [--rounds 61]

Both are `Trainer`'s donating step with each loss on a tape. They take turns in one process, as in
`step_overhead`; the loss function gives its logits in both.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import jax
import optax
from contenders import Contender, fresh
from models import TASKS, Task
from step_overhead import run_time

import toolshed
from toolshed import metrics as tm

STEPS = 200
CHOICES = {
    "loss": tm.Loss(),
    "accuracy": tm.Accuracy("preds", "batch/y"),
    "top_3": tm.Accuracy("preds", "batch/y", top_k=3),
    "f1": tm.FBeta("preds", "batch/y", classes=10),
    "xent": tm.CrossEntropy("preds", "batch/y"),
}
NORM = {"gradient": tm.Norm("grads/**")}  # reads every gradient, which is another kind of cost


def contender(task: Task, metrics: dict[str, Any]) -> Contender:
    """Steps that gather some metrics."""
    model, forward = task.models["penzai"]()

    def loss_fn(*, model: Any, state: Any, rng: Any, x: jax.Array, y: jax.Array) -> Any:
        del rng
        preds = forward(model, x)
        return task.loss(preds, y), state, {"preds": preds}

    collection = tm.collection(**metrics) if metrics else None
    initial = toolshed.TrainState.initial_state(model, task.optimizer, jax.random.key(1), metrics=collection)
    step = toolshed.build_train_step(loss_fn, fields=(), donate=True)

    def ready(steps: int) -> Any:
        first, tape = fresh(initial), step.tape()

        def run() -> Any:
            state = first
            for _ in range(steps):
                state, _ = step(state, task.batch, tape)
            tape.take()
            return state.params

        return run

    return Contender(ready, lambda params: optax.tree.norm(params))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Times training steps with and without metrics.")
    parser.add_argument("--rounds", type=int, default=61)
    rounds = parser.parse_args().rounds
    task = TASKS["B"]()
    names = {
        "none": {},
        **{name: {name: metric} for name, metric in CHOICES.items()},
        "all five": CHOICES,
        "norm of all gradients": NORM,
        "all six": CHOICES | NORM,
    }
    contenders = {name: contender(task, metrics) for name, metrics in names.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name in contenders:
        run_time(contenders[name], STEPS)
    order = list(contenders)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            times[name].append(run_time(contenders[name], STEPS) / STEPS)
    print(f"### {task.name}: {task.about}; {rounds} rounds\n")
    print("| metrics | µs per step | times the step without | fastest round |\n|---|---:|---:|---:|")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times["none"], strict=True))
        fastest = min(seconds) / min(times["none"])
        print(f"| {name} | {statistics.median(seconds) * 1e6:.1f} | {ratio:.3f} | {fastest:.3f} |")


if __name__ == "__main__":
    main()
