"""Wrong calls of a run, and of what makes one. The run that they are made with stays as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import toolshed
from tests import zoo
from tests.misuse.calls import ADAM, BATCH, Misuse, trainer
from tests.training.by_hand import differing, values_of
from toolshed.errors import DataError, RunError, ToolshedError
from toolshed.training import EarlyStopping


@functools.cache
def run() -> toolshed.Run:
    """A run after two steps, for the whole table."""
    made = toolshed.Run(trainer(), [BATCH, BATCH])
    made.train(2, wait=True)
    return made


def on_a_run(wrong: Callable[[toolshed.Run], Any]) -> Callable[[], Any]:
    """The call; after it the run must be where it was."""

    def call() -> Any:
        before, status = values_of(run().state), run().status
        try:
            return wrong(run())
        finally:
            assert (run().progress.step, run().status) == (2, status)
            assert differing(values_of(run().state), before) == []

    return call


_EXPECTED = (
    r"^Expected Run\(trainer, state, data\), Run\(trainer, data\) or Run\(model, optimizer, loss_fn, data\),"
)

TABLE = [
    # making one
    Misuse("a run of nothing", toolshed.Run, RunError, rf"{_EXPECTED} got nothing\.$"),
    Misuse(
        "a run of a model alone",
        lambda: toolshed.Run(zoo.mlp().model, [BATCH]),
        RunError,
        rf"{_EXPECTED} got .*list",
    ),
    Misuse(
        "a run with the data before the state",
        lambda: toolshed.Run(trainer(), [BATCH], run().state),
        RunError,
        rf"{_EXPECTED} got Trainer, list.*, TrainState",
    ),
    Misuse(
        "a run whose optimiser and loss function are swapped",
        lambda: toolshed.Run(zoo.mlp().model, zoo.regression_loss, ADAM, [BATCH]),
        RunError,
        _EXPECTED,
    ),
    Misuse(
        "a run of a loss function that is none",
        lambda: toolshed.Run(zoo.mlp().model, ADAM, "mse", [BATCH]),
        ValueError,
        r"^Expected a loss function, got str",
    ),
    Misuse(
        "a trainer and metrics",
        lambda: toolshed.Run(trainer(), [BATCH], metrics=toolshed.metrics.collection()),
        RunError,
        r"^metrics and gradient_strategy are the trainer's: pass them to Trainer\(…\)\.$",
    ),
    Misuse(
        "a run of one batch",
        lambda: toolshed.Run(trainer(), BATCH),
        DataError,
        r"^Expected a loader or an iterable, got a dict\. For arrays by name use from_arrays\.$",
    ),
    Misuse(
        "a run of a number", lambda: toolshed.Run(trainer(), 3), DataError, r"^Expected a loader or an itera"
    ),
    Misuse(
        "a run of a state without data",
        lambda: toolshed.Run(trainer(), run().state),
        RunError,
        rf"{_EXPECTED} got Trainer, TrainState",
    ),
    Misuse(
        "eval_data that is one batch",
        lambda: toolshed.Run(trainer(), [BATCH], eval_data=BATCH),
        DataError,
        r"^Expected a loader or an iterable, got a dict\.",
    ),
    Misuse(
        "eval_data that can be read once",
        lambda: toolshed.Run(trainer(), [BATCH], eval_data=iter([BATCH])),
        DataError,
        r"^eval_data is read at the end of each window, and list_iterator can be read only once\. Pass some",
    ),
    *(
        Misuse(
            f"{name}={value!r}",
            lambda name=name, value=value: toolshed.Run(trainer(), [BATCH], **{name: value}),
            RunError,
            rf"^{name} is {value!s}; expected a whole number from {least}\.$",
        )
        for name, value, least in (
            ("eval_every", 0, 1),
            ("eval_every", 2.5, 1),
            ("eval_every", True, 1),
            ("norms_every", -1, 0),
            ("snapshot_every", 0, 1),
            ("snapshot_bytes", -1, 0),
            ("snapshot_bytes", 1e9, 0),
            ("seed", 0.5, 0),
        )
    ),
    Misuse(
        "a run without a name",
        lambda: toolshed.Run(trainer(), [BATCH], name=""),
        RunError,
        r"^A run is to be called ''; expected a name in one line\.$",
    ),
    Misuse(
        "a run whose name is a number",
        lambda: toolshed.Run(trainer(), [BATCH], name=3),
        RunError,
        r"^A run is to be called 3; expected a name in one line\.$",
    ),
    # stepping and training
    *(
        Misuse(
            f"run.{method}({value!r})",
            on_a_run(lambda run, method=method, value=value: getattr(run, method)(value)),
            RunError,
            rf"^{name} is .*; expected a whole number from {least}\.$",
        )
        for method, value, name, least in (
            ("step", 0, "n", 1),
            ("step", "one", "n", 1),
            ("step", None, "n", 1),
            ("train", -5, "steps", 0),
            ("train", 10.0, "steps", 0),
            ("back", 0, "n", 1),
            ("back", True, "n", 1),
            ("goto", -1, "step", 0),
            ("goto", np.float32(1), "step", 0),
            ("explain", 0, "step", 1),
        )
    ),
    Misuse(
        "training without an end where nobody could stop it",
        on_a_run(lambda run: run.train(wait=True)),
        RunError,
        r"^Training without an end would never return here, where nobody could stop it\. Say for how long: ",
    ),
    Misuse(
        "a condition that is none",
        on_a_run(lambda run: run.train(until=0.97, wait=True)),
        RunError,
        r"^until is float.*; expected a function of the step and the values, such as toolshed\.until\.metric",
    ),
    Misuse(
        "a condition with two bounds",
        lambda: toolshed.until.metric("eval/loss", above=1, below=2),
        RunError,
        r"^until\.metric\('eval/loss'\) needs either above=… or below=…\.$",
    ),
    Misuse(
        "a watch that is none",
        on_a_run(lambda run: run.train(5, watch="eval/loss", wait=True)),
        RunError,
        r"^Expected a watch to be a function, got str",
    ),
    Misuse(
        "a watch of a value that there is not",
        on_a_run(lambda run: run.train(5, watch=[EarlyStopping("train/los", patience=1)], wait=True)),
        ToolshedError,
        r"^EarlyStopping has no value 'train/los' to monitor\. Did you mean 'train/loss'\?$",
    ),
    Misuse(
        "resuming what was not paused",
        on_a_run(lambda run: run.resume()),
        RunError,
        r"^Nothing is paused: the run is finished\. run\.train\(steps\) trains on\.$",
    ),
    Misuse(
        "waiting for a training inside of it",
        on_a_run(lambda run: run.call(lambda state: run.train(1, wait=True))),
        RunError,
        r"^The training cannot wait for its own end\. Call run\.wait\(\) from a cell\.$",
    ),
    # moving and changing
    Misuse(
        "a step that was not made",
        on_a_run(lambda run: run.goto(7)),
        RunError,
        r"^Step 7 has not been made on the branch 'main', which ends at step 2\. run\.train\(steps\) goes on",
    ),
    Misuse(
        "a branch that there is not",
        on_a_run(lambda run: run.goto(1, "other")),
        RunError,
        r"^There is no branch 'other'; there are main\.$",
    ),
    Misuse(
        "a branch that there is",
        on_a_run(lambda run: run.fork("main")),
        RunError,
        r"^There is a branch 'main' already; choose another name\.$",
    ),
    Misuse(
        "an edit without injected hyperparameters",
        on_a_run(lambda run: run.edit(learning_rate=0.1)),
        RunError,
        r"^There is no hyperparameter 'learning_rate' that can be set while training\. Make the optimiser",
    ),
    Misuse(
        "a change of the model that gives nothing",
        on_a_run(lambda run: run.edit_model(lambda model: None)),
        RunError,
        r"^The function gave None; expected it to return the changed model\.$",
    ),
    # logging
    *(
        Misuse(
            f"a logged value named {name!r}",
            on_a_run(lambda run, name=name: run.log(name, 1.0)),
            RunError,
            message,
        )
        for name, message in (
            ("", r"^A value is to be logged as ''; expected a name such as 'probe/norm'\.$"),
            (3, r"^A value is to be logged as 3; expected a name such as"),
            (
                "train/loss",
                r"^The run writes values named 'train/loss' itself\. Choose another name, such as",
            ),
            ("eval/loss", r"^The run writes values named 'eval/loss' itself"),
            ("optim/grad_norm", r"^The run writes values named 'optim/grad_norm' itself"),
            ("speed/steps_per_second", r"^The run writes values named 'speed/steps_per_second' itself"),
        )
    ),
    *(
        Misuse(
            f"a logged value that is {kind}",
            on_a_run(lambda run, value=value: run.log("my/value", value)),
            RunError,
            rf"^my/value is {described}; expected one real number\.$",
        )
        for kind, value, described in (
            ("a text", "high", "str"),
            ("nothing", None, "NoneType"),
            ("an array", jnp.ones(3), r"float32\[3\]"),
            ("complex", np.complex64(1), r"complex64\[\]"),
            ("a list", [1.0], "list"),
        )
    ),
    Misuse(
        "an optimiser that is a function",
        lambda: toolshed.Run(zoo.mlp().model, optax.adam, zoo.regression_loss, [BATCH]),
        RunError,
        _EXPECTED,
    ),
]
