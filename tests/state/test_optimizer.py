from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from toolshed import TrainState
from toolshed.state import describe_optimizer, name_optimizer

PARAMS = {"v": jnp.ones(2), "w": jnp.ones(2)}
ADAM = "scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0, mu_dtype=None, nesterov=False)"


def cosine(learning_rate: float = 0.1, steps: int = 100) -> Any:
    return optax.cosine_decay_schedule(learning_rate, steps)


# Each line follows from the optimiser's definition in optax: what it chains, under which names.
LINES = {
    "sgd": (optax.sgd(0.1), "identity() → scale(step_size=-0.1)"),
    "momentum": (
        optax.sgd(0.5, momentum=0.9),
        "trace(accumulator_dtype=None, decay=0.9, nesterov=False) → scale(step_size=-0.5)",
    ),
    "adam": (optax.adam(1e-3), f"{ADAM} → scale(step_size=-0.001)"),
    "clipped": (
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)),
        f"clip_by_global_norm(max_norm=1) → {ADAM} → scale(step_size=-0.001)",
    ),
    "chains in chains": (
        optax.chain(optax.chain(optax.scale(1.5), optax.scale(2.5)), optax.chain(optax.scale(3.5))),
        "scale(step_size=1.5) → scale(step_size=2.5) → scale(step_size=3.5)",
    ),
    "schedule": (
        optax.sgd(cosine()),
        "identity() → scale_by_schedule(step_size_fn=scale_by_learning_rate(learning_rate="
        "cosine_decay_schedule(alpha=0, decay_steps=100, exponent=1, init_value=0.1), m=-1))",
    ),
    "joined schedules": (
        optax.sgd(optax.join_schedules([optax.constant_schedule(0.5), optax.constant_schedule(0.25)], [10])),
        "identity() → scale_by_schedule(step_size_fn=scale_by_learning_rate(learning_rate="
        "join_schedules(boundaries=[10], schedules=[constant_schedule(value=0.5),"
        " constant_schedule(value=0.25)]), m=-1))",
    ),
    "piecewise schedule": (
        optax.sgd(optax.piecewise_constant_schedule(0.5, {3: 0.25})),
        "identity() → scale_by_schedule(step_size_fn=scale_by_learning_rate(learning_rate="
        "piecewise_constant_schedule(boundaries_and_scales={3: 0.25}, init_value=0.5), m=-1))",
    ),
    "nothing": (optax.identity(), "identity()"),
}


@pytest.mark.parametrize("name", LINES)
def test_an_optimiser_is_one_line_of_what_it_does_with_which_numbers(name):
    optimizer, line = LINES[name]
    assert describe_optimizer(optimizer) == line


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (optax.adam(1e-3), "scale_by_adam → scale"),
        (optax.adamw(cosine()), "scale_by_adam → add_decayed_weights → scale_by_schedule"),
        (optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), "clip → trace → scale"),
        (optax.inject_hyperparams(optax.adam)(learning_rate=1e-3), "inject_hyperparams"),
        (optax.with_extra_args_support(optax.with_extra_args_support(optax.scale(2.0))), "scale"),
    ],
)
def test_an_optimiser_s_name_is_the_names_of_its_transformations(optimizer, name):
    assert name_optimizer(optimizer) == name


def custom(rate: float, *, state: bool = False) -> optax.GradientTransformation:
    def init(params: Any) -> Any:
        return {"count": jnp.zeros([], jnp.int32)} if state else optax.EmptyState()

    def apply(updates: Any, opt_state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda update: -rate * update, updates), opt_state

    return optax.GradientTransformation(init, apply)


def test_a_transformation_of_one_s_own_goes_by_its_function_and_what_that_closes_over():
    assert describe_optimizer(custom(0.5)) == "custom(rate=0.5)"
    assert name_optimizer(custom(0.5)) == "custom"
    chained = optax.chain(optax.clip(2.5), custom(0.5))
    assert describe_optimizer(chained) == "clip(max_delta=2.5) → custom(rate=0.5)"


def test_one_group_of_parameters_may_have_its_own_optimiser():
    labels = {"w": "fast", "v": "slow"}
    optimizer = optax.multi_transform({"fast": optax.sgd(0.5), "slow": optax.adam(1e-3)}, labels)
    line = describe_optimizer(optimizer)
    assert f"fast: identity() → scale(step_size=-0.5), slow: {ADAM} → scale(step_size=-0.001)" in line
    assert "{w: 'fast', v: 'slow'}" in line


DIFFERENT = {
    "learning rate": [optax.sgd(0.1), optax.sgd(0.2)],
    "decay": [optax.adam(1e-3), optax.adam(1e-3, b1=0.8), optax.adam(1e-3, nesterov=True)],
    "accumulator": [optax.adam(1e-3), optax.adam(1e-3, mu_dtype=jnp.bfloat16)],
    "schedule": [
        optax.adam(0.1),
        optax.adam(cosine()),
        optax.adam(cosine(0.2)),
        optax.adam(cosine(0.1, 200)),
        optax.adam(optax.linear_schedule(0.1, 0.0, 100)),
        optax.adam(optax.linear_schedule(0.1, 0.01, 100)),
    ],
    "order": [
        optax.chain(optax.clip(1.0), optax.scale(-0.5)),
        optax.chain(optax.scale(-0.5), optax.clip(1.0)),
    ],
    "group": [
        optax.multi_transform({"a": optax.sgd(0.1), "b": optax.sgd(rate)}, {"w": "a", "v": label})
        for rate, label in ((0.2, "b"), (0.3, "b"), (0.3, "a"))
    ],
    "mask": [
        optax.masked(optax.sgd(0.1), {"w": True, "v": False}),
        optax.masked(optax.sgd(0.1), {"w": True, "v": True}),
    ],
    "schedule of an injected hyperparameter": [
        optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.1, 0.0, steps))
        for steps in (5, 500)
    ],
    "what is injected": [
        optax.inject_hyperparams(optax.sgd)(learning_rate=0.1),
        optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    ],
    "accumulation": [
        optax.MultiSteps(optax.sgd(rate), k).gradient_transformation()
        for rate, k in ((0.1, 2), (0.1, 3), (0.2, 2))
    ],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_optimisers_that_differ_have_lines_that_differ(name):
    for one, two in itertools.combinations(DIFFERENT[name], 2):
        assert describe_optimizer(one) != describe_optimizer(two)


MAKERS = {
    "sgd": lambda: optax.sgd(0.1, momentum=0.9),
    "adamw on a schedule": lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)),
    "clipped lion": lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-4)),
    "injected": lambda: optax.inject_hyperparams(optax.adam)(learning_rate=1e-3),
    "injected schedule": lambda: optax.inject_hyperparams(optax.sgd)(learning_rate=cosine()),
    "groups": lambda: optax.multi_transform(
        {"a": optax.sgd(0.1), "b": optax.adam(0.2)}, {"w": "a", "v": "b"}
    ),
    "masked": lambda: optax.masked(optax.sgd(0.1), {"w": True, "v": False}),
    "named": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("sgd", optax.sgd(0.5))),
    "schedule free": lambda: optax.contrib.schedule_free_sgd(0.1),
    "accumulated": lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation(),
    "noisy": lambda: optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.1)),
    "plateau": lambda: optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    "line search": lambda: optax.lbfgs(),
    "custom": lambda: custom(0.5),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_line_is_the_same_for_each_object_made_alike_and_shows_no_address(name):
    one, two = MAKERS[name](), MAKERS[name]()
    assert one is not two
    assert describe_optimizer(one) == describe_optimizer(two)
    assert name_optimizer(one) == name_optimizer(two)
    assert " at 0x" not in describe_optimizer(one)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"plateau", "line search"}))
def test_a_line_does_not_change_when_the_optimiser_is_used(name):
    optimizer = MAKERS[name]()
    before = describe_optimizer(optimizer)
    state = TrainState.create(
        params=PARAMS, model_without_params=(), optimizer_def=optimizer, root_rng=jax.random.key(0)
    )
    used = state.apply_gradients(PARAMS)
    assert describe_optimizer(optimizer) == describe_optimizer(used.optimizer_def) == before
    jax.jit(optimizer.update)(PARAMS, optimizer.init(PARAMS), PARAMS)
    assert describe_optimizer(optimizer) == before
