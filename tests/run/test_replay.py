"""Going back makes the same bits again: for models with randomness, accumulated gradients, shuffled data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, on_host, values_of
from toolshed.errors import ReplayWarning
from toolshed.gradients import Accumulate, GradientStrategy, backprop

# A partial last batch has a shape of its own.
pytestmark = pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")

STEPS = 23
BACK_TO = (0, 1, 6, 7, 14, 22)


def shuffled(case: zoo.Case, size: int = 8) -> Any:
    """A shuffled stream of the case's batches whose last batch is not full."""
    several = batches(case, 3)
    examples = {name: np.concatenate([batch[name] for batch in several]) for name in several[0]}
    n = len(next(iter(examples.values()))) - 3
    examples = {name: values[:n] for name, values in examples.items()}
    return toolshed.data.from_arrays(examples, batch_size=size, last="drop" if size == 4 else "keep")


CASES: dict[str, tuple[Callable[[], zoo.Case], GradientStrategy, int]] = {
    "mlp": (zoo.mlp, backprop, 8),
    "larger mlp": (zoo.digits_sized, backprop, 8),
    "dropout transformer": (zoo.dropout_transformer, backprop, 2),
    "running statistics": (zoo.running_statistics, backprop, 8),
    "convolutions": (zoo.convolutional, backprop, 8),
    "accumulated": (zoo.dropout_mlp, Accumulate(2), 4),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def trained(request: pytest.FixtureRequest) -> tuple[Any, list[Any]]:
    """A run that was stepped one by one, with the values of its state at each step."""
    build, strategy, size = request.param
    case = build()
    optimizer = optax.inject_hyperparams(optax.adamw)(
        learning_rate=optax.schedules.cosine_decay_schedule(0.01, 40)
    )
    run = toolshed.Run(
        case.model,
        optimizer,
        case.loss_fn,
        shuffled(case, size),
        gradient_strategy=strategy,
        metrics=toolshed.metrics.collection(norm=toolshed.metrics.Norm("params")),
        eval_every=7,
        snapshot_every=6,
    )
    seen = [everything(run)]
    for _ in range(STEPS):
        run.train(1, wait=True)
        seen.append(everything(run))
    return run, seen


def everything(run: toolshed.Run) -> dict[str, np.ndarray]:
    """All values of the present state, those of the metrics too."""
    state = run.state
    return {**values_of(state), **on_host({"metrics": state.metrics.states})}


@pytest.mark.parametrize("step", BACK_TO)
def test_a_step_that_is_gone_back_to_has_the_bits_that_it_had(trained: Any, step: int):
    run, seen = trained
    run.goto(step)
    assert differing(everything(run), seen[step]) == []
    run.goto(STEPS)
    assert differing(everything(run), seen[STEPS]) == []
    assert differing(seen[STEPS], seen[STEPS - 1]) != []  # the comparison can fail


def test_training_on_from_an_earlier_step_makes_the_same_steps_again_on_a_branch(trained: Any):
    run, seen = trained
    run.goto(9, "main")
    run.train(STEPS - 9, wait=True)
    assert run.history.branch != "main"
    assert differing(everything(run), seen[STEPS]) == []
    run.goto(STEPS, "main")
    assert differing(everything(run), seen[STEPS]) == []


@pytest.mark.parametrize("step", [1, 8, 15, 22])
def test_explaining_a_step_gives_the_gradients_that_made_it_and_moves_nothing(trained: Any, step: int):
    run, seen = trained
    run.goto(STEPS, "main")
    before = run.data_position
    context = run.explain(step)
    assert int(context.step) == step - 1
    assert differing(on_host({"params": context.params}), on_host_part(seen[step - 1], "params")) == []
    again = run.trainer.build_step(fields=())(
        run.state.replace(
            step=context.step,
            params=context.params,
            opt_state=context.opt_state,
            model_state=context.model_state,
        ),
        context.batch,
    )[0]
    for path, value in on_host({"params": again.params}).items():
        np.testing.assert_allclose(value, seen[step][path], rtol=1e-6, atol=1e-7)
    assert run.data_position == before
    assert differing(everything(run), seen[STEPS]) == []


def on_host_part(values: dict[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {path: value for path, value in values.items() if path.startswith(f"{part}/")}


def test_a_step_by_hand_is_a_step_like_any_other(trained: Any):
    run, seen = trained
    run.goto(12, "main")
    context = run.step(3)
    assert int(context.step) == 14
    assert differing(everything(run), seen[15]) == []
    assert set(context.filled) >= {"params", "grads", "updates", "aux", "preds", "opt_state", "metric_states"}
    assert differing(on_host({"params": context.params}), on_host_part(seen[14], "params")) == []
    run.back(2)
    assert differing(everything(run), seen[13]) == []


def test_edits_are_made_again():
    case = zoo.mlp()
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)
    run = toolshed.Run(case.model, optimizer, case.loss_fn, batches(case, 5), snapshot_every=4)
    seen = [values_of(run.state)]
    for step in range(12):
        if step in (3, 4, 9):
            run.edit(learning_rate=1e-2 / (step + 1))
            seen[-1] = values_of(run.state)
        run.train(1, wait=True)
        seen.append(values_of(run.state))
    for step in (11, 3, 4, 9, 6, 12):
        run.goto(step)
        assert differing(values_of(run.state), seen[step]) == [], step
    rates = run.history.series("optim/learning_rate").values
    np.testing.assert_allclose(rates, [1e-2] * 3 + [1e-2 / 4] + [1e-2 / 5] * 5 + [1e-2 / 10] * 3, rtol=1e-6)


def test_a_replay_that_comes_out_differently_is_told_with_the_step_and_the_first_leaf():
    case = zoo.mlp()
    data = batches(case, 4)
    run = toolshed.Run(case.model, optax.adam(1e-2), case.loss_fn, data, snapshot_every=5)
    run.train(12, wait=True)
    data[2] = {**data[2], "x": data[2]["x"] + 1}  # the list is the run's; step 3 and 7 see this batch
    with pytest.warns(
        ReplayWarning, match=r"Step 7 came out differently.*from step 5.*the first leaf"
    ) as caught:
        run.goto(8)
    assert "By step 10 the first leaf that differs is params/" in str(caught[0].message)
    assert any(event.kind == "note" and "came out differently" in event.text for event in run.events)
    assert int(run.state.step) == 8


def test_the_key_of_a_step_does_not_depend_on_how_it_was_reached():
    case = zoo.dropout_mlp()
    run = toolshed.Run(case.model, optax.sgd(1e-2), case.loss_fn, batches(case, 3))
    run.train(4, wait=True)
    first = jax.random.key_data(run.explain(3).rng)
    run.back(4)
    run.step(2)
    np.testing.assert_array_equal(jax.random.key_data(run.step().rng), first)
