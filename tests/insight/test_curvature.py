"""Hessians of quadratics, which are known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.insight.faults import small
from tests.training.by_hand import count_compilations, new_state
from toolshed.errors import BatchError, StateError, ToolshedError
from toolshed.insight import hessian_trace, hessian_vector_product, objective, top_eigenvalue


def matrix(eigenvalues: Any, seed: int = 0) -> np.ndarray:
    """A symmetric matrix with these eigenvalues, in directions at random."""
    values = np.asarray(eigenvalues, np.float64)
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return turned @ np.diag(values) @ turned.T


def quadratic(hessian: np.ndarray) -> Any:
    """½ pᵀ H p of a tree of two parameters, the first of 3 values."""
    h = jnp.asarray(hessian, jnp.float32)

    def loss(params):
        p = jnp.concatenate([params["a"], params["b"].ravel()])
        return 0.5 * p @ h @ p

    return loss


def tree(values: Any) -> dict[str, jax.Array]:
    values = jnp.asarray(values, jnp.float32)
    return {"a": values[:3], "b": values[3:].reshape(-1, 1)}


SPECTRA = {
    "spread": np.linspace(-3, 40, 24),
    "one large": [100.0, *np.linspace(0.1, 1, 23)],
    "negative": -np.linspace(1, 20, 24),
    "equal": [5.0] * 24,
    "of low rank": [7.0, 2.0, *[0.0] * 22],
    "tiny": np.linspace(1e-8, 1e-7, 24),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_top_eigenvalue_of_a_quadratic_is_right_within_a_hundredth(name):
    eigenvalues = np.sort(SPECTRA[name])
    found = top_eigenvalue(quadratic(matrix(eigenvalues)), tree(np.ones(24)), iterations=20)
    assert found.value == pytest.approx(eigenvalues[-1], rel=0.01)
    assert abs(found.value - eigenvalues[-1]) <= found.error + 1e-4 * abs(eigenvalues).max()
    assert abs(found.smallest - eigenvalues[0]) <= found.smallest_error + 1e-4 * abs(eigenvalues).max()
    assert found.iterations <= 20


def test_the_error_tells_when_there_were_too_few_iterations():
    eigenvalues = np.linspace(0, 40, 24)
    rough, fine = (
        top_eigenvalue(quadratic(matrix(eigenvalues)), tree(np.ones(24)), iterations=n) for n in (3, 20)
    )
    assert rough.error > 1 > 0.1 > fine.error
    assert abs(rough.value - 40) <= rough.error


def test_one_parameter_has_one_eigenvalue():
    found = top_eigenvalue(lambda p: 3 * p**2, jnp.float32(2))
    assert (found.value, found.smallest, found.iterations) == (pytest.approx(6), pytest.approx(6), 1)


def test_a_product_with_the_hessian_is_that_of_the_matrix():
    hessian = matrix(SPECTRA["spread"])
    vector = np.random.default_rng(1).normal(size=24)
    found = hessian_vector_product(quadratic(hessian), tree(np.ones(24)), tree(vector))
    product = np.concatenate([np.ravel(found["a"]), np.ravel(found["b"])])
    np.testing.assert_allclose(product, hessian @ vector, rtol=1e-4, atol=1e-4)


def test_the_trace_of_a_quadratic_is_right_within_three_standard_errors():
    for seed in range(3):
        hessian = matrix(SPECTRA["spread"], seed)
        found = hessian_trace(quadratic(hessian), tree(np.ones(24)), samples=64, key=jax.random.key(seed))
        assert abs(found.value - np.trace(hessian)) <= 3 * found.error
        off_diagonal = hessian - np.diag(np.diag(hessian))
        assert found.error == pytest.approx(np.sqrt(2 * (off_diagonal**2).sum() / 64), rel=0.5)
        assert found.samples == 64


def test_the_trace_of_a_diagonal_hessian_has_no_error():
    found = hessian_trace(quadratic(np.diag(np.arange(24.0))), tree(np.ones(24)), samples=4)
    assert found.value == pytest.approx(276)
    assert found.error == pytest.approx(0, abs=1e-3)


def test_a_loss_of_half_precision_is_measured_in_full():
    found = top_eigenvalue(lambda p: (p.astype(jnp.float32) ** 2).sum() * 3, jnp.ones(8, jnp.bfloat16))
    assert found.value == pytest.approx(6, rel=0.02)


# --- of a model -----------------------------------------------------------------------------------------


def test_the_curvature_of_a_linear_model_is_that_of_its_data():
    case = small()
    state = new_state(case, optax.sgd(0.1))
    loss = objective(case.loss_fn, state, case.batch)
    x = np.concatenate([np.asarray(case.batch["x"], np.float64), np.ones((4, 1))], axis=1)
    hessian = 2 * x.T @ x / 4  # of the mean of (x·w + b - y)²
    assert top_eigenvalue(loss, state.params).value == pytest.approx(
        np.linalg.eigvalsh(hessian)[-1], rel=1e-4
    )
    found = hessian_trace(loss, state.params, samples=64)
    assert abs(found.value - np.trace(hessian)) <= 3 * found.error
    assert float(loss(state.params)) == pytest.approx(float(case.loss_fn(
        model=state.model, state=None, rng=None, **case.batch)[0]))  # fmt: skip


def test_another_batch_of_the_shape_compiles_nothing():
    case = small()
    state = new_state(case, optax.sgd(0.1))
    top_eigenvalue(objective(case.loss_fn, state, case.batch), state.params, iterations=2)
    later = {name: value + 1 for name, value in case.batch.items()}
    with count_compilations() as compiled:
        first = top_eigenvalue(objective(case.loss_fn, state, case.batch), state.params, iterations=2)
        second = top_eigenvalue(objective(case.loss_fn, state, later), state.params, iterations=2)
    assert compiled == []
    assert first.value != second.value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: top_eigenvalue(jnp.sum, jnp.ones(2), iterations=0), r"^top_eigenvalue got iterations=0 and"),
        (lambda: top_eigenvalue(jnp.asarray, {}), r"^top_eigenvalue got iterations=32 and 0 parameters"),
        (lambda: hessian_trace(lambda p: p, 1.0, samples=1), r"^hessian_trace got samples=1; expected"),
        (
            lambda: objective(3, new_state(small()), {}),
            r"^Expected a loss function, a TrainStep or a Trainer",
        ),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_was_expected(call, message):
    with pytest.raises(ToolshedError, match=message):
        call()


def test_an_objective_checks_its_state_and_its_batch():
    case = small()
    with pytest.raises(StateError, match=r"^Expected a TrainState, got dict\."):
        objective(case.loss_fn, {}, case.batch)  # type: ignore[arg-type]
    with pytest.raises(BatchError, match=r"^regression_loss cannot be called with this batch"):
        objective(case.loss_fn, new_state(case), {"z": 1})
