"""Functions of paths, functions of each leaf of a tree, and norms."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

from tests.metrics.merging import Arrays, check, for_any_seed, merged, random_batches, value_of
from toolshed import Context
from toolshed.errors import ToolshedError
from toolshed.metrics import Function, Mapped, Norm, collection


def distance(preds: Any, y: Any) -> Any:
    return jnp.linalg.norm(preds - y, axis=-1)


DISTANCE = Function(distance, "preds", "batch/y")


def numbers(rng: np.random.Generator, n: int) -> Arrays:
    return {
        "preds": rng.normal(size=(n, 3)).astype(np.float32),
        "y": rng.normal(size=(n, 3)).astype(np.float32),
    }


@for_any_seed
def test_a_function_of_merged_batches_is_averaged_over_all_at_once(seed):
    batches, whole = random_batches(seed, numbers)
    distances = np.linalg.norm(whole["preds"] - whole["y"], axis=-1)
    check(merged(DISTANCE, batches, seed), distances.mean() if len(distances) else np.nan)


def test_a_function_that_gives_a_scalar_counts_once_a_step():
    largest = Function(lambda x: x.max(), "batch/x")
    metrics = collection(largest=largest)
    for x in ([1.0, 5.0, 2.0], [3.0]):
        metrics = metrics.update(Context(step=0, batch={"x": jnp.array(x), "mask": jnp.ones(len(x), bool)}))
    assert metrics.compute() == {"largest": 4.0}


def test_a_function_whose_values_do_not_line_up_with_the_mask_is_an_error():
    reversed_axes = Function(lambda x: x.T, "batch/x", mask="batch/mask")
    expected = r"^The mask batch/mask is bool\[2\] and batch/x after <lambda> is float32\[3,2\]; expected a"
    with pytest.raises(ToolshedError, match=expected):
        value_of(reversed_axes, x=np.ones((2, 3), np.float32), mask=[True, True])


def test_functions_are_equal_by_what_they_do():
    assert Function(distance, "preds", "batch/y") == DISTANCE != Function(distance, "preds", "batch/z")
    assert hash(DISTANCE) == hash(Function(distance, "preds", "batch/y"))
    with pytest.raises(ToolshedError, match=r"^Expected a function and the Context paths of its arguments"):
        Function(distance)


# --- trees ------------------------------------------------------------------------------------------


def with_grads(scale: float) -> Context:
    grads = {
        "mlp/0.weights": pz.nx.wrap(scale * jnp.array([[3.0, 0.0], [0.0, 0.0]])).tag_prefix("in"),
        "mlp/0.bias": jnp.array([4 * scale]),
    }
    return Context(step=0, batch={"mask": jnp.ones(2, bool)}, grads=grads)


LEAVES = ["grads/mlp/0.weights", "grads/mlp/0.bias"]


def test_a_norm_is_optax_s_averaged_over_steps():
    metrics = collection(norm=Norm("grads/**"), tree=Norm("grads"), one=Norm("grads/mlp/0.bias"))
    for scale in (1.0, 3.0):
        metrics = metrics.update(with_grads(scale))
    assert metrics.compute() == {"norm": 10.0, "tree": 10.0, "one": 8.0}  # 5 and 15; 4 and 12
    plain = {name: getattr(leaf, "data_array", leaf) for name, leaf in with_grads(1.0).grads.items()}
    assert float(optax.tree.norm(plain)) == 5
    kinds = {"n": jnp.array([3, 4]), "z": jnp.array([12j]), "h": jnp.zeros(2, "bfloat16")}
    whole = Context(step=0, batch={}, grads=kinds)
    assert collection(norm=Norm("grads")).update(whole).compute() == {"norm": 13.0}


def test_a_norm_of_each_leaf_is_reported_by_its_path():
    metrics = collection(norms=Norm("grads/**", per_leaf=True, leaves=LEAVES))
    assert list(metrics.compute()) == [f"norms/{path}" for path in LEAVES]
    assert all(np.isnan(value) for value in metrics.compute().values())
    metrics = metrics.update(with_grads(1.0)).update(with_grads(2.0))
    assert metrics.compute() == {"norms/grads/mlp/0.weights": 4.5, "norms/grads/mlp/0.bias": 6.0}


def test_any_function_of_leaves_is_reduced_by_any_other():
    largest = Mapped(lambda leaf: jnp.abs(leaf).max(), "grads/**", reduce=jnp.max)
    smallest = Mapped(jnp.min, "grads/**", reduce=jnp.sum)
    metrics = collection(largest=largest, smallest=smallest, mean=Mapped(jnp.max, "grads/**"))
    assert metrics.update(with_grads(1.0)).compute() == {"largest": 4.0, "smallest": 4.0, "mean": 3.5}


def test_leaves_that_differ_from_those_named_are_an_error():
    with pytest.raises(ToolshedError, match=r"^A value for each leaf of 'grads/\*\*' needs their paths"):
        Norm("grads/**", per_leaf=True)
    few = Norm("grads/**", per_leaf=True, leaves=LEAVES[:1])
    expected = (
        r"^'grads/\*\*' matches 2 leaves and leaves= names 1: 'grads/mlp/0\.bias' is found but not in"
        r" leaves\. Name each matching leaf by its full path\.$"
    )
    with pytest.raises(ToolshedError, match=expected):
        few.state_from(with_grads(1.0))
    many = Norm("grads/**", per_leaf=True, leaves=[*LEAVES, "grads/other"])
    with pytest.raises(ToolshedError, match=r"'grads/other' is in leaves but not found"):
        many.state_from(with_grads(1.0))


def test_what_is_no_scalar_is_an_error():
    with pytest.raises(
        ToolshedError, match=r"^The function gave float32\[2,2\] for grads/mlp/0\.weights; expected a scalar"
    ):
        Mapped(jnp.abs, "grads/mlp/0.weights").state_from(with_grads(1.0))
    with pytest.raises(ToolshedError, match=r"^reduce gave float32\[2\] for 'grads/\*\*'; expected a scalar"):
        Mapped(jnp.max, "grads/**", reduce=jnp.abs).state_from(with_grads(1.0))
