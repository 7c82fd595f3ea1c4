"""Evaluation counts each example once: in batches of any size, on any number of devices."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import optax
import pytest
from penzai import pz

from tests import zoo
from tests.training.by_hand import count_compilations, values_of
from toolshed import Trainer
from toolshed.data import from_arrays
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


SCRIPT = """
import json, warnings
import jax, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import toolshed
from tests import zoo
from tests.training.test_evaluation import DATA, masked_loss

def mean_of_ones(*, model, state, rng, x, mask):
    total = jax.numpy.where(mask, x, 0).sum() / jax.numpy.maximum(mask.sum(), 1)
    return total, state, {"x": x}

def mean_without_mask(*, model, state, rng, x):
    return x.mean(), state, {"x": x}

metrics = toolshed.metrics.collection(
    mean=toolshed.metrics.Mean("batch/x", mask="batch/mask"),
)
found = {}
for devices in (1, 2, 8):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    ones = toolshed.data.from_arrays({"x": np.ones(5, np.float32)}, 4)
    masked = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), mean_of_ones, metrics=metrics)
    plain = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), mean_without_mask)
    real = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), masked_loss)
    state = jax.device_put(masked.init(jax.random.key(0)), NamedSharding(mesh, PartitionSpec()))
    found[devices] = {
        "masked": masked.evaluate(state, ones, sharding=sharding),
        "not sharded": masked.evaluate(state, ones),
        "plain": plain.evaluate(state, ones, sharding=sharding),
        "real": real.evaluate(state, toolshed.data.from_arrays(DATA, 7), sharding=sharding)["loss"],
    }
print(json.dumps(found))
"""


@functools.cache
def on_devices() -> dict[str, Any]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    process = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("devices", ["1", "2", "8"])
def test_five_ones_in_batches_of_four_average_to_exactly_1_on_any_number_of_devices(devices):
    found = on_devices()[devices]
    assert found["masked"] == {"loss": 1.0, "mean": 1.0}
    assert found["not sharded"] == {"loss": 1.0, "mean": 1.0}
    assert found["plain"] == {"loss": 1.0}
    assert found["real"] == pytest.approx(on_devices()["1"]["real"], rel=1e-6)
