"""Collections: named metrics and their states as one value, in a compiled step and out of it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import zoo
from tests.metrics.test_metric import MEAN, context_of
from toolshed import Context, TrainState, build_train_step
from toolshed.errors import ToolshedError
from toolshed.metrics import (
    AUCROC,
    MSE,
    NDCG,
    PSNR,
    R2,
    SSIM,
    Accuracy,
    BinaryCrossEntropy,
    ConfusionMatrix,
    Count,
    CrossEntropy,
    ExplainedVariance,
    FBeta,
    Function,
    Loss,
    Mean,
    Metric,
    Norm,
    Std,
    Sum,
    collection,
)


def test_a_collection_gathers_each_metric_by_its_name():
    metrics = collection(first=Mean("aux/values", mask=None), second=MEAN)
    assert list(metrics.compute()) == ["first", "second"]
    assert all(np.isnan(value) for value in metrics.compute().values())
    metrics = metrics.update(context_of([True, False], [1.0, 3.0]))
    metrics = metrics.update(context_of([True, True], [5.0, 7.0]))
    assert metrics.compute() == {"first": 4.0, "second": pytest.approx(13 / 3)}
    assert all(isinstance(value, float) for value in metrics.compute().values())


def test_a_collection_is_a_value():
    empty = collection(mean=Mean("aux/values"))
    one, two = (empty.update(context_of(values=[value])) for value in (1.0, 2.0))
    assert np.isnan(empty.compute()["mean"])
    assert (one.compute(), two.compute()) == ({"mean": 1.0}, {"mean": 2.0})
    assert one.merge(two).compute() == two.merge(one).compute() == {"mean": 1.5}
    assert np.isnan(one.reset().compute()["mean"])
    assert one.compute() == {"mean": 1.0}


def test_states_of_several_steps_merge_into_what_the_steps_one_by_one_give():
    contexts = [context_of([True, False], [float(i), 9.0]) for i in range(5)]
    metrics = one_by_one = collection(mean=MEAN)
    for context in contexts:
        one_by_one = one_by_one.update(context)
        metrics = metrics.merge_states(metrics.states_from(context))
    assert metrics.compute() == one_by_one.compute() == {"mean": 2.0}


def test_a_collection_goes_through_jax_and_keeps_its_metrics():
    metrics = collection(mean=Mean("aux/values"))

    @jax.jit
    def gather(metrics, values):
        return metrics.update(Context(step=0, batch={}, aux={"values": values}))

    gathered = gather(gather(metrics, jnp.ones(3)), 4 * jnp.ones(1))
    assert gathered.definition is metrics.definition
    assert gathered.compute() == {"mean": 1.75}
    leaves, treedef = jax.tree.flatten(gathered)
    assert jax.tree.unflatten(treedef, leaves).compute() == {"mean": 1.75}


def test_a_metric_of_one_s_own_needs_four_methods_and_nothing_else():
    class Largest:
        def empty(self) -> Any:
            return jnp.array(-jnp.inf)

        def state_from(self, context: Any) -> Any:
            return context["aux/values"].max()

        def merge(self, a: Any, b: Any) -> Any:
            return jnp.maximum(a, b)

        def compute(self, state: Any) -> Any:
            return state

    metrics = collection(largest=Largest())
    for values in ([1.0, 5.0], [4.0], [-2.0]):
        metrics = metrics.update(context_of(values=values))
    assert metrics.compute() == {"largest": 5.0}
    assert isinstance(Largest(), Metric)


def test_metrics_of_one_kind_are_equal_by_their_paths():
    assert Mean("a") == Mean("a") != Mean("a", mask="b")
    assert hash(Accuracy()) == hash(Accuracy())
    assert repr(collection(mean=MEAN).definition) == (
        "mean=Mean(values='aux/values', mask='batch/mask', weights=None)"
    )


def test_what_is_no_metric_is_an_error_that_names_it():
    expected = r"^The metric 'mine' is .*; expected one like toolshed\.metrics\.Accuracy\(\)\.$"
    with pytest.raises(ToolshedError, match=expected):
        collection(mine=Accuracy)  # the class, not one of its kind


# --- every kind of metric ---------------------------------------------------------------------------


def everything() -> Context:
    """Four examples, the last one padding that is not a number, with fields for every kind of metric."""
    rng = np.random.default_rng(0)

    def padded(*shape: int) -> jax.Array:
        return jnp.asarray(rng.random((4, *shape)), jnp.float32).at[3].set(jnp.nan)

    return Context(
        step=0,
        batch={
            "mask": jnp.array([True, True, True, False]),
            "label": jnp.array([0, 2, 1, 1]),
            "binary": jnp.array([0, 1, 0, 1]),
            "y": padded(),
            "image": padded(12, 12),
            "relevance": jnp.asarray(rng.integers(0, 3, (4, 3))),
        },
        aux={"score": padded(), "image": padded(12, 12)},
        preds=padded(3),
        loss_total=jnp.float32(2),
        grads={"w": jnp.array([3.0, 4.0])},
    )


KINDS: dict[str, Metric] = {
    "mean": Mean("batch/y"),
    "sum": Sum("batch/y"),
    "count": Count("batch/y"),
    "std": Std("batch/y"),
    "loss": Loss(),
    "accuracy": Accuracy(),
    "top": Accuracy(top_k=2),
    "f": FBeta(classes=3),
    "by_class": FBeta(average=None, classes=3),
    "matrix": ConfusionMatrix(3),
    "auc": AUCROC("aux/score", "batch/binary", capacity=5),
    "binned": AUCROC("aux/score", "batch/binary", bins=5),
    "mse": MSE("aux/score"),
    "r2": R2("aux/score"),
    "explained": ExplainedVariance("aux/score"),
    "entropy": CrossEntropy(),
    "binary": BinaryCrossEntropy("aux/score", "batch/binary"),
    "function": Function(lambda a, b: a * b, "aux/score", "batch/y"),
    "norm": Norm("grads/**"),
    "ndcg": NDCG(),
    "psnr": PSNR("aux/image"),
    "ssim": SSIM("aux/image"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_metric_is_one_array_of_the_same_shape_from_the_start(name):
    metric = KINDS[name]
    empty = metric.empty()
    state = jax.eval_shape(lambda context: metric.merge(empty, metric.state_from(context)), everything())
    assert isinstance(empty, jax.Array)
    assert (state.shape, state.dtype) == (empty.shape, empty.dtype)
    assert empty.dtype == jnp.float32
    assert empty.size <= 32


@pytest.mark.parametrize("name", ["mean", "std", "top", "by_class", "auc", "r2", "entropy", "norm", "ndcg"])
def test_a_metric_says_the_same_compiled_and_not(name):
    metric = KINDS[name]

    def value(context: Context) -> Any:
        return metric.compute(metric.merge(metric.empty(), metric.state_from(context)))

    compiled = jax.jit(value)(everything())
    assert np.isfinite(compiled).all()
    with jax.disable_jit():
        np.testing.assert_allclose(value(everything()), compiled, rtol=1e-6)


update = jax.jit(lambda metrics, context: metrics.update(context))
merge = jax.jit(lambda a, b: a.merge(b))


def test_every_metric_of_nothing_is_nan_and_adds_nothing():
    empty = collection(**KINDS)
    batch = {**everything().batch, "mask": jnp.zeros(4, bool)}
    padding, real = update(empty, everything().replace(batch=batch)), update(empty, everything())
    for metrics, names in ((empty, KINDS), (merge(empty, empty), KINDS), (padding, set(KINDS) - {"norm"})):
        values = metrics.compute()
        assert [name for name in names if not np.isnan(values[name]).all()] == []
    alone, together = real.compute(), merge(merge(padding, real), padding).compute()
    assert list(alone) == list(KINDS)
    for name in KINDS:
        np.testing.assert_array_equal(alone[name], together[name], err_msg=name)
    # Scalars are plain numbers, all else is numpy's.
    assert {name for name, value in alone.items() if isinstance(value, np.ndarray)} == {"by_class", "matrix"}
    assert {type(value) for value in alone.values()} == {float, np.ndarray}


# --- in the compiled step ---------------------------------------------------------------------------


def test_metrics_of_a_training_step_are_those_of_its_context():
    case = zoo.mlp()
    metrics = collection(loss=Loss(), norm=Norm("grads/**"), updates=Norm("updates"), y=Std("batch/y"))
    step = build_train_step(case.loss_fn)
    state = TrainState.initial_state(case.model, optax.adam(1e-2), jax.random.key(0), metrics=metrics)
    by_hand = metrics
    for _ in range(3):
        state, context = step(state, case.batch)
        by_hand = update(by_hand, context)
    assert step.traces == 1
    values, expected = state.compute_metrics(), by_hand.compute()
    assert values == pytest.approx(expected, rel=1e-6)
    assert values["loss"] > 0
    assert values["y"] == pytest.approx(np.asarray(case.batch["y"]).std(), rel=1e-6)
