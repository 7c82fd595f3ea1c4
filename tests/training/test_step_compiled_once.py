"""A step is compiled once, and says why where it must be compiled again."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, differing, new_state, values_of
from tests.training.steps import MODES
from toolshed import build_train_step
from toolshed.errors import BatchError, RetraceWarning


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_steps_compile_once(mode):
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, **MODES[mode])
    metrics = toolshed.metrics.collection(loss=toolshed.metrics.Mean("loss_total"))
    state, tape = new_state(case, metrics=metrics), step.tape(capacity=100)
    batch = case.batch if step.steps_per_call == 1 else toolshed.data.stack([case.batch] * 10)
    state, _ = step(state, batch, tape)
    state, _ = step(state, batch, tape)
    with count_compilations() as compiled:
        while int(state.step) < 1_000:
            state, _ = step(state, batch, tape)
    assert compiled == []
    assert step.traces == 1
    assert len(tape.take().steps) == 1_000


def test_the_first_step_compiles_one_program_and_a_step_looked_at_two():
    case = zoo.mlp()
    for fields, programs in (((), 1), (None, 2)):
        step, state = build_train_step(case.loss_fn, fields=fields), new_state(case)
        with count_compilations() as compiled:
            for _ in range(3):
                state, _ = step(state, case.batch)
        assert len([name for name in compiled if "_trace" in name or "fields" in name]) == programs


@pytest.mark.parametrize("model", ["random_stream", "lora_by_freezing", "lora_by_metadata", "v1_mlp"])
def test_a_second_step_compiles_nothing_whatever_the_model(model):
    case = zoo.ZOO[model]()
    step, state = build_train_step(case.loss_fn, donate=True), new_state(case)
    state, _ = step(state, case.batch)
    with count_compilations() as compiled:
        for _ in range(3):
            state, _ = step(state, case.batch)
    assert compiled == []
    assert step.traces == 1


def test_another_batch_shape_gives_one_warning_that_names_the_entry_and_both_shapes():
    case = zoo.mlp()
    step, state = build_train_step(case.loss_fn, fields=()), new_state(case)
    short = {name: array[:5] for name, array in case.batch.items()}
    state, _ = step(state, case.batch)
    with count_compilations() as compiled, pytest.warns(RetraceWarning) as given:
        state, _ = step(state, short)
    assert [type(warning.message) for warning in given] == [RetraceWarning]
    text = str(given[0].message)
    assert "batch/x: float32[8,4] → float32[5,4]; batch/y: float32[8,1] → float32[5,1]." in text
    assert "last='drop', last='mask'" in text
    assert len(compiled) == 1
    with count_compilations() as compiled:  # both shapes are known now: no warning, which is an error here
        state, _ = step(state, case.batch)
        state, _ = step(state, short)
    assert compiled == []
    assert step.traces == 2
    assert int(state.step) == 4


def test_another_dtype_gives_a_warning_that_names_both():
    case = zoo.mlp()
    step, state = build_train_step(case.loss_fn, fields=()), new_state(case)
    step(state, case.batch)
    half = {**case.batch, "x": case.batch["x"].astype(jnp.bfloat16)}
    with pytest.warns(RetraceWarning, match=r"batch/x: float32\[8,4\] → bfloat16\[8,4\]\. Each"):
        step(state, half)


def test_a_step_compiled_again_for_another_reason_says_so_too():
    case = zoo.mlp()
    step, state = build_train_step(case.loss_fn, fields=()), new_state(case)
    step(state, case.batch)
    with (
        jax.default_matmul_precision("float32"),
        pytest.warns(
            RetraceWarning, match="no shape or dtype changed, so a weak type, a sharding or a jax setting"
        ),
    ):
        step(state, case.batch)
    assert step.traces == 2


@pytest.mark.parametrize("change", ["lost", "gained"])
def test_a_batch_of_another_structure_is_an_error_and_the_state_stays_usable(change):
    def flexible_loss(*, model, state, rng, x, y=None, z=None):
        return zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=x[:, :1] if y is None else y)

    case = zoo.mlp()
    step, state = build_train_step(flexible_loss, donate=True), new_state(case)
    state, _ = step(state, case.batch)
    before = values_of(state)
    other = {"x": case.batch["x"]} if change == "lost" else {**case.batch, "z": case.batch["y"]}
    entry = "y" if change == "lost" else "z"
    with pytest.raises(BatchError, match=rf"it {change} {entry}\. The first one had x float32\[8,4\], y"):
        step(state, other)
    assert differing(values_of(state), before) == []
    state, _ = step(state, case.batch)
    assert int(state.step) == 2


def test_a_new_skeleton_of_equal_structure_does_not_compile_again():
    optimizer = optax.adam(1e-2)
    case, again = zoo.running_statistics(), zoo.running_statistics()
    step = build_train_step(case.loss_fn, fields=())
    first, second = new_state(case, optimizer), new_state(again, optimizer)
    assert first.model_without_params is not second.model_without_params
    first, _ = step(first, case.batch)
    with count_compilations() as compiled:
        second, _ = step(second, case.batch)
    assert compiled == []
    assert step.traces == 1
    assert differing(values_of(first), values_of(second)) == []


def test_frozen_weights_are_arguments_so_other_values_need_no_new_program():
    optimizer = optax.sgd(1e-2)
    case = zoo.lora_by_freezing()
    doubled = (
        pz.select(case.model)
        .at_instances_of(pz.ParameterValue)
        .apply(lambda parameter: dataclasses.replace(parameter, value=parameter.value * 2.0))
    )
    assert pz.select(case.model).at_instances_of(pz.ParameterValue).count() == 4
    step = build_train_step(case.loss_fn, fields=("loss_total",))
    step(new_state(case, optimizer), case.batch)
    with count_compilations() as compiled:
        _, context = step(new_state(case._replace(model=doubled), optimizer), case.batch)
    assert compiled == []
    expected, _, _ = case.loss_fn(model=doubled, state=None, rng=None, **case.batch)
    np.testing.assert_allclose(context.loss_total, expected, rtol=1e-5)


def test_two_optimisers_of_one_structure_are_not_mixed_up():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=("grads",))
    slow, fast = new_state(case, optax.sgd(0.01)), new_state(case, optax.sgd(0.05))
    for _ in range(3):  # alternating, so that nothing remembered from the call before may be used
        for rate, state in ((0.01, slow), (0.05, fast)):
            after, context = step(state, case.batch)
            for path, value in state.params.items():
                np.testing.assert_allclose(after.params[path], value - rate * context.grads[path], rtol=1e-5)
    assert step.traces == 2


def test_many_optimisers_and_skeletons_one_after_another_are_kept_apart():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=("grads",))
    states = [(rate, new_state(case, optax.sgd(rate))) for rate in np.linspace(0.01, 0.1, 9)]
    for rate, state in [*states, states[0]]:  # more than a step keeps programs for
        after, context = step(state, case.batch)
        path = "mlp/Affine_1/AddBias.bias"
        expected = state.params[path] - rate * context.grads[path]
        np.testing.assert_allclose(after.params[path], expected, rtol=1e-5)
