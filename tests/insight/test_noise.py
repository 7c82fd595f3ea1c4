"""The noise of gradients whose mean and spread are known."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests.insight.faults import small
from tests.training.by_hand import new_state
from tests.zoo import Scale
from toolshed.errors import BatchError, ToolshedError
from toolshed.gradients import Accumulate
from toolshed.insight import gradient_noise


def loss_fn(*, model: Any, state: Any, rng: jax.Array, g: jax.Array, mask: Any = None) -> Any:
    """A loss whose gradient for an example is that example: Σ g·w, in the mean."""
    return jnp.mean(g @ model.factor.value.unwrap("features")), state, None


def a_state() -> toolshed.TrainState:
    factor = pz.Parameter(value=pz.nx.ones({"features": 3}), label="factor")
    return new_state(small()._replace(model=Scale(factor)), optax.sgd(0.1))


def estimates(g: np.ndarray) -> tuple[float, float]:
    """‖G‖² and tr Σ, from single examples, as McCandlish et al. write them (A.1): B_small 1, B_big all."""
    n = len(g)
    small_, big = (g**2).sum(axis=1).mean(), (g.mean(axis=0) ** 2).sum()
    return (n * big - small_) / (n - 1), (small_ - big) / (1 - 1 / n)


@pytest.mark.parametrize("parts", [None, 4])
def test_the_noise_scale_is_that_of_the_paper(parts):
    g = np.random.default_rng(0).normal(2, 1, (32, 3)).astype(np.float32)
    found = gradient_noise(loss_fn, a_state(), {"g": jnp.asarray(g)}, parts=parts)
    grouped = g.astype(np.float64).reshape(found.parts, -1, 3).mean(axis=1)
    signal, noise = estimates(grouped)
    noise *= 32 / found.parts
    assert found.signal["factor"] == pytest.approx(math.sqrt(signal), rel=1e-4)
    assert found.noise["factor"] == pytest.approx(math.sqrt(noise), rel=1e-4)
    assert found.noise_scale == pytest.approx(noise / signal, rel=1e-4)
    assert found.snr_of_all == pytest.approx(math.sqrt(signal / (noise / 32)), rel=1e-4)
    assert (found.examples, found.parts) == (32, parts or 32)


def test_the_estimates_are_right_on_average():
    true_signal, true_noise = 3 * 0.5**2, 3 * 1.0
    signals, noises = [], []
    for seed in range(40):
        g = np.random.default_rng(seed).normal(0.5, 1, (64, 3)).astype(np.float32)
        found = gradient_noise(loss_fn, a_state(), {"g": jnp.asarray(g)}, parts=8)
        signals.append(found.signal_of_all**2)
        noises.append(found.noise_of_all**2)
    for values, truth in ((signals, true_signal), (noises, true_noise)):
        assert abs(np.mean(values) - truth) <= 3 * np.std(values) / math.sqrt(40)


def test_equal_examples_have_no_noise_and_opposite_ones_no_signal():
    same = gradient_noise(loss_fn, a_state(), {"g": jnp.full((4, 3), 1e3)})
    assert (same.noise_of_all, same.noise_scale, same.snr_of_all) == (0, 0, math.inf)
    opposite = gradient_noise(loss_fn, a_state(), {"g": jnp.array([[1.0, 0, 0], [-1.0, 0, 0]])})
    assert (opposite.signal_of_all, opposite.noise_scale) == (0, math.inf)


def test_the_parameters_of_a_model_are_told_apart_and_shown():
    case = small()
    found = gradient_noise(case.loss_fn, new_state(case), case.batch)
    assert set(found.snr) == {"mlp/Affine_0/Linear.weights", "mlp/Affine_0/AddBias.bias"}
    assert found.signal_of_all**2 <= sum(value**2 for value in found.signal.values()) + 1e-6
    lines = repr(found).splitlines()
    assert lines[0] == "Gradients of 4 parts of a batch of 4 examples"
    assert lines[-1].startswith("noise scale: ")
    assert lines[-2].split()[0] == "all"


def test_the_step_s_own_strategy_finds_the_gradients():
    case = small()
    step = toolshed.build_train_step(case.loss_fn, gradient_strategy=Accumulate(2))
    found = gradient_noise(step, new_state(case), case.batch, parts=2)
    assert found.noise_scale == pytest.approx(
        gradient_noise(case.loss_fn, new_state(case), case.batch, parts=2).noise_scale, rel=1e-4
    )


def test_padding_and_parts_that_do_not_divide_are_errors():
    g = jnp.ones((4, 3))
    with pytest.raises(BatchError, match=r"^The batch has padding \(mask is false somewhere\)"):
        gradient_noise(loss_fn, a_state(), {"g": g, "mask": jnp.array([1, 1, 1, 0], bool)})
    assert gradient_noise(loss_fn, a_state(), {"g": g, "mask": jnp.ones(4, bool)}).parts == 4
    with pytest.raises(BatchError, match=r"its 4 examples cannot be cut into 3 parts"):
        gradient_noise(loss_fn, a_state(), {"g": g}, parts=3)
    with pytest.raises(ToolshedError, match=r"^gradient_noise got 1 parts; expected a whole number from 2\."):
        gradient_noise(loss_fn, a_state(), {"g": g}, parts=1)
