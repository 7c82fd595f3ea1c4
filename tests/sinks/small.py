"""A small run with a past of two branches, and what its sinks have to have of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import toolshed
from tests.run.kept import data, trainer

TRAINER = trainer()
NAMES = ("train/loss", "optim/learning_rate")
ODD = "<b>mine</b>/number"


def finish(run: toolshed.Run) -> None:
    """What the end of a script does."""
    for follower in run._followers:
        follower.finish(patience=300)


def two_branches(*sinks: Any) -> toolshed.Run:
    """Ten steps, then back to the sixth, and three steps from there; an edit; a value that comes late."""
    config = {"width": 8, "_odd": {"tags": ["a", None]}}
    run = toolshed.Run(TRAINER, data(), name="a run/..", sinks=sinks, config=config)
    run.train(5, wait=True)
    time.sleep(0.6)
    run.train(5, wait=True)
    run.edit(learning_rate=5e-3)
    run.log(ODD, float("nan"))
    run.goto(6)
    run.train(3, wait=True)
    finish(run)
    return run


def expected(run: toolshed.Run, name: str, branch: str) -> dict[int, float]:
    """The values that were made on a branch itself, by step."""
    steps, values = run.history.series(name, branch, own=True)
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def check(found: dict[str, dict[int, float]], run: toolshed.Run, branch: str) -> None:
    """Whether a sink has each value of a branch once, to the last bit."""
    for name in NAMES:
        wanted = expected(run, name, branch)
        assert list(found[name]) == list(wanted)
        np.testing.assert_array_equal(
            np.asarray(list(found[name].values()), np.float32), np.asarray(list(wanted.values()), np.float32)
        )


def failure(run: toolshed.Run) -> str:
    """What the run says of a sink that failed."""
    (event,) = [event for event in run.events if event.kind == "error"]
    return event.text
