"""What a run writes down: the values of each step, norms, windows, speed and evaluations."""

from __future__ import annotations

import math
import time

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.small import (
    LENGTH,
    RATE,
    data,
    events_of,
    is_alive,
    is_clean,
    new_run,
    slowly,
    trainer,
    until,
    values,
)
from tests.training import by_hand


def norm_of(tree: object) -> float:
    return math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(tree)))


def test_the_values_of_each_step_are_those_of_a_training_by_hand():
    run = new_run(norms_every=3, eval_every=4, eval_data=list(data())[:2])
    run.train(9, wait=True)
    assert set(run.history.names) >= {
        "train/loss",
        "train/norm",
        "eval/loss",
        "eval/norm",
        "optim/learning_rate",
        "optim/grad_norm",
        "optim/update_norm",
    }
    state = trainer().init(jax.random.key(0))
    batches = [data()[number % LENGTH] for number in range(9)]
    trained = by_hand.train(zoo.mlp(), optax.adam(RATE), state.root_rng, batches)
    losses = values(run, "train/loss")
    assert list(losses) == list(range(1, 10))
    np.testing.assert_allclose(list(losses.values()), trained.losses, rtol=1e-5)
    assert values(run, "optim/learning_rate") == pytest.approx(dict.fromkeys(range(1, 10), RATE))
    grads, updates, params, evaluated = {}, {}, [], {}
    for step, batch in enumerate(batches, 1):
        state, context = trainer().step(state, batch)
        grads[step], updates[step] = norm_of(context.grads), norm_of(context.updates)
        params.append(norm_of(context.params))
        if step % 4 == 0:
            evaluated[step] = trainer().evaluate(state, list(data())[:2])
    assert values(run, "optim/grad_norm") == pytest.approx({k: grads[k] for k in (1, 4, 7)}, rel=1e-5)
    assert values(run, "optim/update_norm") == pytest.approx({k: updates[k] for k in (1, 4, 7)}, rel=1e-5)
    by_window = {4: np.mean(params[:4]), 8: np.mean(params[4:8])}
    assert values(run, "train/norm") == pytest.approx(by_window, rel=1e-5)
    for name in ("loss", "norm"):
        expected = {step: found[name] for step, found in evaluated.items()}
        assert values(run, f"eval/{name}") == pytest.approx(expected, rel=1e-6)
    assert evaluated[4]["loss"] != evaluated[8]["loss"]


def test_norms_are_left_out_where_nobody_wants_them():
    run = new_run(norms_every=0)
    run.train(5, wait=True)
    assert {"optim/grad_norm", "optim/update_norm"}.isdisjoint(run.history.names)
    assert is_clean(run)


@pytest.mark.parametrize(("length", "window"), [(25, 25), (5, 100)])
def test_a_window_is_an_epoch_unless_that_is_short(length: int, window: int):
    source = toolshed.data.from_function(lambda number: data()[number % LENGTH], length)
    run = new_run(source)
    run.train(2 * window, wait=True)
    assert list(values(run, "train/norm")) == [window, 2 * window]


def test_speed_is_written_down_about_once_a_second_with_the_examples_in_a_step():
    run = new_run(slowly(0.01))
    run.train(until=lambda step, values: False, wait=False)
    until(lambda: "speed/examples_per_second" in run.history.names, 15)
    run.stop()
    run.wait()
    steps, examples = values(run, "speed/steps_per_second"), values(run, "speed/examples_per_second")
    assert steps.keys() == examples.keys()
    for step, speed in steps.items():
        assert 0 < speed <= 100
        assert examples[step] == pytest.approx(8 * speed, rel=1e-4)
    assert run.progress.steps_per_second is not None
    assert run.progress.elapsed >= 1.0


def test_evaluations_are_events_that_are_told_and_not_kept():
    run, told = new_run(eval_data=list(data()), eval_every=2), []
    run.subscribe(told.append)
    run.train(4, wait=True)
    evaluated = [event for event in told if event.kind == "evaluated"]
    assert [event.step for event in evaluated] == [2, 4]
    assert evaluated[0].data["values"]["eval/loss"] == pytest.approx(values(run, "eval/loss")[2])
    assert events_of(run, "evaluated") == []
    assert {event.kind for event in told} == {"status", "rows", "evaluated"}


def test_a_program_that_trains_many_steps_reads_values_in_blocks():
    run, blocks = new_run(), []
    run.subscribe(lambda event: blocks.append(event.data) if event.kind == "rows" else None)
    run.train(3000, wait=True)
    assert len(run.history.series("train/loss").steps) == 3000
    assert len(blocks) < 100
    assert [block["from"] for block in blocks[1:]] == [block["to"] + 1 for block in blocks[:-1]]
    assert blocks[-1]["to"] == 3000


def test_training_waits_for_metrics_that_take_longer_than_its_steps_so_that_few_wait_in_memory():
    area = toolshed.metrics.AUCROC(predictions="preds", targets="batch/y", capacity=8_000)
    slow = toolshed.Trainer(
        zoo.mlp().model,
        trainer().optimizer,
        zoo.regression_loss,
        metrics=toolshed.metrics.collection(area=area),
    )
    labelled = [{**batch, "y": np.float32(batch["y"] > 0)} for batch in data()]
    run = toolshed.Run(slow, labelled, eval_every=1)
    run.train(2, wait=True)
    run.train(80, wait=False)
    most = 0
    while run.status == "training":
        before = run.progress.step
        most = max(most, before - run.history.last("train/area")[0])
        assert is_alive(run.state)
        time.sleep(0.01)
    run.wait()
    assert list(values(run, "train/area")) == list(range(1, 83))
    assert most < 30
