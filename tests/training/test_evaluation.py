"""Evaluation counts each example once, in batches of any size."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, differing, values_of
from tests.training.trainers import arrays, named, shared, start, stream, trainer_of
from toolshed import Trainer
from toolshed.data import from_arrays
from toolshed.errors import DataError
from toolshed.metrics import Mapped, Mean, Norm, collection

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
DATA = {"x": X, "y": X.sum(axis=1, keepdims=True)}


def masked_loss(
    *, model: Any, state: Any, rng: jax.Array, x: jax.Array, y: jax.Array, mask: jax.Array
) -> Any:
    preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
    errors = ((preds - y) ** 2).mean(-1)
    loss = jax.numpy.where(mask, errors, 0).sum() / jax.numpy.maximum(mask.sum(), 1)
    return loss, state, {"preds": preds}


@functools.cache
def masked_trainer() -> Trainer:
    metrics = collection(mean=Mean("preds", mask="batch/mask"))
    return Trainer(zoo.mlp().model, optax.sgd(0.1), masked_loss, metrics=metrics)


@functools.cache
def plain_trainer() -> Trainer:
    return Trainer(zoo.mlp().model, optax.sgd(0.1), zoo.regression_loss)


@pytest.mark.parametrize("examples", [1, 5, 8, 23])
@pytest.mark.parametrize("batch_size", [1, 4, 8, 50])
def test_any_number_of_examples_in_any_batches_is_the_whole(examples, batch_size):
    some = {name: values[:examples] for name, values in DATA.items()}
    trainer = masked_trainer()
    state = trainer.init(jax.random.key(0))
    found = trainer.evaluate(state, from_arrays(some, batch_size))
    preds = trainer.predict(state, pz.nx.wrap(some["x"], "batch", "features")).unwrap("batch", "features")
    assert found["loss"] == pytest.approx(float(((preds - some["y"]) ** 2).mean()), rel=1e-5)
    assert found == pytest.approx(trainer.evaluate(state, [some]), rel=1e-5, abs=1e-6)
    plain = plain_trainer().evaluate(state, from_arrays(some, batch_size))
    assert plain["loss"] == pytest.approx(found["loss"], rel=1e-5)


def test_batches_that_are_filled_up_are_compiled_once():
    trainer = Trainer(zoo.mlp().model, optax.sgd(0.1), masked_loss)
    state = trainer.init(jax.random.key(0))
    with count_compilations() as compiled:
        trainer.evaluate(state, from_arrays(DATA, 7))  # 7, 7, 7 and 3
    assert sum("run" in name for name in compiled) == 1


def test_metrics_of_gradients_are_gathered_in_training_and_left_out_of_evaluation():
    metrics = collection(norm=Norm("grads/**"), size=Norm("params/**"), mean=Mean("preds"))
    trainer = Trainer(zoo.mlp().model, optax.sgd(0.1), zoo.regression_loss, metrics=metrics)
    state = trainer.fit(trainer.init(jax.random.key(0)), from_arrays(DATA, 8), steps=2)
    assert state.compute_metrics()["norm"] > 0
    assert list(trainer.evaluate(state, [DATA])) == ["loss", "size", "mean"]


@pytest.mark.parametrize("metric", [Mean("preds", mask=None), Mapped(lambda x: x.max(), "preds", reduce=sum)])
def test_a_metric_that_looks_at_no_mask_sees_no_padding(metric):
    trainer = Trainer(zoo.mlp().model, optax.sgd(0.1), masked_loss, metrics=collection(m=metric))
    state, sizes = trainer.init(jax.random.key(0)), []
    even = trainer._evaluate._even
    trainer._evaluate._even = lambda *arguments: (  # type: ignore[method-assign]
        sizes.append(len(batch["x"])) or batch for batch in even(*arguments)
    )
    masked = [{**batch, "mask": np.ones(len(batch["x"]), bool)} for batch in from_arrays(DATA, 7)]
    trainer.evaluate(state, masked)
    assert sizes == [7, 7, 7, 3]


def test_padding_that_the_data_has_already_is_not_counted():
    trainer = masked_trainer()
    state = trainer.init(jax.random.key(0))
    padded = from_arrays(DATA, 7, last="mask", shuffle=False)
    assert trainer.evaluate(state, padded) == pytest.approx(trainer.evaluate(state, [DATA]), rel=1e-5)


def test_evaluation_changes_nothing_and_draws_nothing_that_training_draws():
    case = zoo.dropout_mlp()
    trainer = Trainer(case.model, optax.adam(1e-2), case.loss_fn)
    state, data = trainer.init(jax.random.key(1)), from_arrays(DATA, 8, seed=3)
    before, position = values_of(state), data.position
    trainer.evaluate(state, data)
    after = values_of(state)
    assert all(before[path].tobytes() == after[path].tobytes() for path in before)
    assert data.position == position
    evaluated = trainer.fit(state, data, steps=3)
    untouched = Trainer(case.model, optax.adam(1e-2), case.loss_fn)
    alone = untouched.fit(untouched.init(jax.random.key(1)), from_arrays(DATA, 8, seed=3), steps=3)
    assert all(np.array_equal(evaluated.params[path], alone.params[path]) for path in alone.params)


# --- by a trainer -----------------------------------------------------------------------------------


def loss_with_or_without_mask(*, model: Any, state: Any, rng: Any, x: Any, y: Any, mask: Any = None) -> Any:
    preds = model(named(x)).untag("batch", "features").unwrap()
    errors = ((preds - y) ** 2)[:, 0]
    mask = jnp.ones(len(errors), bool) if mask is None else mask
    return jnp.where(mask, errors, 0).sum() / mask.sum(), state, {"preds": preds, "errors": errors}


@functools.cache
def evaluator(mask: str | None) -> Trainer:
    metrics = toolshed.metrics.collection(error=toolshed.metrics.Mean("aux/errors", mask=mask))
    return Trainer(zoo.mlp().model, optax.adam(1e-2), loss_with_or_without_mask, metrics=metrics)


@pytest.mark.parametrize(("last", "mask"), [("keep", None), ("mask", "batch/mask")])
@pytest.mark.parametrize("n", [8, 10, 13, 3])
def test_evaluate_is_the_mean_over_the_whole_set_however_the_last_batch_comes_out(last, mask, n):
    trainer = evaluator(mask)
    state, data = start(trainer), from_arrays(arrays(n), 4, last=last)
    predictions = np.asarray(state.model(named(arrays(n)["x"])).untag("batch", "features").unwrap())
    errors = (predictions - arrays(n)["y"])[:, 0] ** 2
    scores = trainer.evaluate(state, data)
    assert scores == pytest.approx({"loss": errors.mean(), "error": errors.mean()}, rel=1e-5)
    if n % 4:
        mean_of_batches = np.mean([errors[at : at + 4].mean() for at in range(0, n, 4)])
        assert scores["loss"] != pytest.approx(mean_of_batches, rel=1e-3) or n < 4


@pytest.mark.parametrize("last", ["keep", "drop", "mask"])
def test_evaluate_takes_every_example_of_a_stream_and_moves_it_nowhere(last):
    trainer = evaluator("batch/mask" if last == "mask" else None)
    state, data = start(trainer), from_arrays(arrays(10), 4, last=last)
    next(iter(data))
    before = data.state()
    scores = trainer.evaluate(state, data)
    assert data.state() == before
    everything = trainer.evaluate(
        state, [{**arrays(10), **({"mask": np.ones(10, bool)} if last == "mask" else {})}]
    )
    assert scores == pytest.approx(everything, rel=1e-5)


def test_evaluate_changes_nothing_in_the_state():
    trainer = shared("running_statistics")
    state = trainer.fit(start(trainer), stream(), steps=2)
    before = values_of(state)
    first = trainer.evaluate(state, stream())
    assert trainer.evaluate(state, stream()) == first
    assert differing(values_of(state), before) == []


def test_evaluate_does_not_touch_the_metrics_gathered_in_training():
    trainer = evaluator(None)
    state = trainer.fit(start(trainer), stream(), steps=4)
    gathered = state.compute_metrics()
    assert trainer.evaluate(state, from_arrays(arrays(10), 4))["error"] != gathered["error"]
    assert state.compute_metrics() == gathered


def test_training_after_an_evaluation_is_training_without_it():
    trainer = shared("dropout_mlp")
    plain = trainer.fit(start(trainer), stream(), steps=6)
    data = stream()
    state = trainer.fit(start(trainer), data, steps=3)
    trainer.evaluate(state, data)
    assert differing(values_of(trainer.fit(state, data, steps=3)), values_of(plain)) == []


def test_evaluate_is_without_dropout_and_training_is_not():
    trainer, x = shared("dropout_mlp"), arrays()
    state = start(trainer)
    other_key = state.replace(root_rng=jax.random.key(99))
    assert trainer.evaluate(state, [x]) == trainer.evaluate(other_key, [x])
    losses = [float(trainer.step(s, x)[1].loss_total) for s in (state, other_key)]
    assert losses[0] != losses[1]


def test_evaluate_draws_no_key_that_training_uses():
    def loss_that_is_its_key(*, model, state, rng, x):
        bits = jax.random.key_data(rng)[1] & 0xFFFFFF  # 24 bits, which a float32 holds exactly
        return jnp.mean(model(named(x)).unwrap("batch", "features")) * 0 + bits, state, {}

    trainer = Trainer(zoo.mlp().model, optax.adam(1e-2), loss_that_is_its_key)
    state, data = start(trainer), [{"x": arrays(1)["x"]}]
    drawn = trainer.evaluate(state, data)["loss"]

    def bits(key: jax.Array) -> int:
        return int(jax.random.key_data(key)[1] & 0xFFFFFF)

    of_steps = [bits(jax.random.fold_in(state.root_rng, number)) for number in range(300)]
    assert float(trainer.step(state, data[0])[1].loss_total) == of_steps[0]  # training does draw these
    assert drawn not in of_steps
    assert drawn != bits(state.root_rng)
    two = trainer.evaluate(state, data * 2)["loss"] * 2 - drawn
    assert two != drawn  # each batch has a key of its own


def test_evaluate_reports_each_metric_by_its_name():
    metrics = toolshed.metrics.collection(
        accuracy=toolshed.metrics.Accuracy(), mean=toolshed.metrics.Mean("loss_total")
    )

    def classification_loss(*, model, state, rng, x, label):
        logits = model(named(x)).untag("batch", "features").unwrap()
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        return losses.mean(), state, {"preds": logits}

    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 3])
    trainer = Trainer(model, optax.adam(5e-2), classification_loss, metrics=metrics)
    x = arrays()["x"]
    data = from_arrays({"x": x, "label": x[:, :3].argmax(axis=1).astype(np.int32)}, 8)
    state = start(trainer)
    guesses = np.asarray(trainer.predict(state, named(x)).untag("batch", "features").unwrap()).argmax(axis=1)
    scores = trainer.evaluate(state, data)
    assert list(scores) == ["loss", "accuracy", "mean"]
    assert scores["accuracy"] == pytest.approx(np.mean(guesses == x[:, :3].argmax(axis=1)))
    assert scores["mean"] == pytest.approx(scores["loss"], rel=1e-6)  # all batches are full
    trained = trainer.fit(state, data, steps=120)
    assert trainer.evaluate(trained, data)["accuracy"] > 0.9 > scores["accuracy"]


@pytest.mark.parametrize("path", ["loss_states/loss", "interms/error", "summary_states/error"])
def test_a_metric_of_training_is_a_metric_of_evaluation(path):
    def loss_with_more(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "interms": {"error": loss}, "summary_states": {"error": loss}}

    metrics = toolshed.metrics.collection(value=toolshed.metrics.Mean(path))
    trainer = trainer_of(loss_fn=loss_with_more, metrics=metrics)
    state = start(trainer)
    scores = trainer.evaluate(state, [zoo.mlp().batch])
    after, _ = trainer.step(state, zoo.mlp().batch)
    assert scores["value"] == pytest.approx(after.compute_metrics()["value"], rel=1e-6)


def test_padding_alone_has_no_mean_and_weighs_nothing():
    trainer = evaluator("batch/mask")
    state, whole = start(trainer), {**arrays(4), "mask": np.ones(4, bool)}
    padding = {**arrays(4), "mask": np.zeros(4, bool)}
    assert np.isnan(list(trainer.evaluate(state, [padding]).values())).all()
    assert trainer.evaluate(state, [whole, padding]) == trainer.evaluate(state, [whole])


@pytest.mark.parametrize("data", [[], iter([])], ids=["list", "iterator"])
def test_evaluate_on_no_data_is_an_error(data):
    with pytest.raises(DataError, match="The data gave no batch"):
        shared().evaluate(start(shared()), data)


def test_evaluate_compiles_once_for_all_states_of_a_model():
    trainer, data = trainer_of(), stream()
    state = start(trainer)
    trainer.evaluate(state, data)
    trained = trainer.fit(state, data, steps=2)
    with count_compilations() as compiled:
        trainer.evaluate(trained, data)
    assert compiled == []
