"""The compiled step does what a loop written by hand does, and says what it knew."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from penzai import pz
from penzai.models.transformer.model_parts import TransformerBlock
from penzai.toolshed.basic_training import StatefulTrainer

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, count_compilations, differing, new_state, values_of
from toolshed import build_train_step
from toolshed.errors import BatchError, FieldNotFilled, NonFiniteError, RetraceWarning, StateError
from toolshed.training.context import FIELDS

STEPS = 50
OPTIMIZERS = {
    "adam": lambda: optax.adam(1e-2),
    "adamw": lambda: optax.adamw(1e-2, weight_decay=0.1),
    "sgd+momentum": lambda: optax.sgd(1e-2, momentum=0.9),
}
MODES: dict[str, dict[str, Any]] = {
    "looked at": {},
    "nothing asked for": {"fields": ()},
    "loss asked for": {"fields": ("loss_total",)},
    "donated": {"donate": True},
    "ten at once": {"steps_per_call": 10},
}


@functools.cache
def case_of(model: str) -> zoo.Case:
    """A case that several tests share, where making it takes long; its transformer has one block."""
    case = zoo.ZOO[model]()
    if model != "transformer":
        return case
    second = pz.select(case.model).at_instances_of(TransformerBlock).pick_nth_selected(1)
    return case._replace(model=second.set(pz.nn.Identity()))


@functools.cache
def trained_by_hand(model: str, optimizer: str) -> by_hand.Trained:
    case = case_of(model)
    return by_hand.train(case, OPTIMIZERS[optimizer](), jax.random.key(1), batches(case, STEPS))


def parameters_of(model: Any) -> list[Any]:
    def is_parameter(node: Any) -> bool:
        return isinstance(node, (pz.Parameter, pz.ParameterValue))

    return list(filter(is_parameter, jax.tree.leaves(model, is_leaf=is_parameter)))


def run(step: toolshed.TrainStep, state: toolshed.TrainState, data: list[Any]) -> toolshed.TrainState:
    k = step.steps_per_call
    for at in range(0, len(data), k):
        state, _ = step(state, data[at] if k == 1 else toolshed.data.stack(data[at : at + k]))
    return state


# --- the same as by hand ----------------------------------------------------------------------------

SAME_BITS = [
    *(("mlp", optimizer, mode) for optimizer in OPTIMIZERS for mode in MODES),
    *(("dropout_mlp", "adam", mode) for mode in MODES),
    *(("dropout_mlp", optimizer, "nothing asked for") for optimizer in ("adamw", "sgd+momentum")),
    *(("transformer", "adamw", mode) for mode in ("looked at", "donated", "ten at once")),
    ("transformer", "adam", "nothing asked for"),
    ("transformer", "sgd+momentum", "loss asked for"),
]


@pytest.mark.parametrize(("model", "optimizer", "mode"), SAME_BITS)
def test_fifty_steps_are_bit_for_bit_those_of_a_loop_written_by_hand(model, optimizer, mode):
    case = case_of(model)
    step = build_train_step(case.loss_fn, **MODES[mode])
    start = jax.tree.map(jnp.copy, new_state(case, OPTIMIZERS[optimizer]()))  # some steps donate it
    state = run(step, start, batches(case, STEPS))
    assert differing(state.params, trained_by_hand(model, optimizer).params) == []
    assert int(state.step) == STEPS


def test_the_losses_are_those_of_the_loop_written_by_hand():
    case, expected = zoo.dropout_mlp(), trained_by_hand("dropout_mlp", "adam").losses
    step, state, losses = build_train_step(case.loss_fn), new_state(case, OPTIMIZERS["adam"]()), []
    for batch in batches(case, STEPS):
        state, context = step(state, batch)
        losses.append(float(context.loss_total))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert losses[-1] < losses[0] / 2


def test_comparing_bits_finds_another_learning_rate_and_another_key():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), STEPS)
    expected = trained_by_hand("dropout_mlp", "adam").params
    step = build_train_step(case.loss_fn, fields=())
    other_rate = run(step, new_state(case, optax.adam(1.0001e-2)), data)
    other_key = run(step, new_state(case, OPTIMIZERS["adam"](), root_rng=jax.random.key(2)), data)
    assert differing(other_rate.params, expected) == sorted(expected)
    assert differing(other_key.params, expected) == sorted(expected)


@pytest.mark.parametrize("model", ["dropout_mlp", "running_statistics"])
def test_losses_and_parameters_are_those_of_penzai_s_stateful_trainer(model):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 20)

    def loss_in_aux(*, model, state, rng, x, y):
        loss, state, aux = case.loss_fn(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "loss": loss}

    optimizer = optax.adam(1e-2)
    trainer = StatefulTrainer.build(jax.random.key(1), zoo.ZOO[model]().model, optimizer, loss_in_aux)
    step, state = build_train_step(case.loss_fn, fields=("loss_total",)), new_state(case, optimizer)
    for batch in data:
        state, context = step(state, batch)
        np.testing.assert_allclose(context.loss_total, trainer.step(**batch)["loss"], rtol=1e-5)
    _, parameters = pz.unbind_params(trainer.model, freeze=True)
    for parameter in parameters:
        theirs = jax.tree.leaves(parameter.value)[0]
        np.testing.assert_allclose(state.params[parameter.label], theirs, rtol=1e-4, atol=1e-6)


# --- states are values ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["random_stream", "running_statistics"])
def test_an_older_state_is_bit_identical_after_100_further_steps_from_it(model):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 4)
    step = build_train_step(case.loss_fn)
    old, context = step(new_state(case), data[0])
    before, state = values_of(old), old
    for number in range(100):
        state, _ = step(state, data[number % 4])
    assert differing(values_of(old), before) == []
    assert set(differing(values_of(state), before)) >= {"step", *(f"params/{path}" for path in old.params)}
    assert int(context.step) == 0


def test_two_branches_from_one_state_do_not_touch_each_other():
    case, data = zoo.running_statistics(), batches(zoo.running_statistics(), 20)
    step = build_train_step(case.loss_fn, fields=())
    fork = run(step, new_state(case), data[:3])
    alone = [values_of(run(step, fork, data[3:10])), values_of(run(step, fork, data[10:17]))]
    left = right = fork
    for a, b in zip(data[3:10], data[10:17], strict=True):  # one step here, one step there
        left, right = step(left, a)[0], step(right, b)[0]
    assert differing(values_of(left), alone[0]) == []
    assert differing(values_of(right), alone[1]) == []
    assert differing(*alone) != []


def test_a_step_from_a_state_kept_aside_gives_the_same_again():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), 8)
    step = build_train_step(case.loss_fn)
    kept = run(step, new_state(case), data[:4])
    first = values_of(run(step, kept, data[4:]))
    assert differing(values_of(run(step, kept, data[4:])), first) == []
    assert differing(values_of(run(step, kept, data[:4])), first) != []


def test_a_donated_state_raises_a_state_error_when_it_is_used_again():
    case = zoo.mlp()
    step, old = build_train_step(case.loss_fn, donate=True), new_state(case)
    state, _ = step(old, case.batch)
    assert all(value.is_deleted() for value in old.params.values())
    gone = r"arrays of this state are gone \(params/mlp/.* is deleted\).*Use the state that the step returned"
    with pytest.raises(StateError, match=gone):
        step(old, case.batch)
    with pytest.raises(StateError, match=gone):
        _ = old.model
    state, _ = step(state, case.batch)  # the state that the step returned is fine
    assert int(state.step) == 2


@pytest.mark.parametrize("kept", ["params", "opt_state", "model_state"])
def test_a_donated_state_raises_a_state_error_whatever_a_field_kept_of_it(kept):
    case = zoo.running_statistics()
    step, old = build_train_step(case.loss_fn, donate=True, fields=(kept,)), new_state(case)
    step(old, case.batch)
    with pytest.raises(StateError, match="arrays of this state are gone"):
        step(old, case.batch)


@pytest.mark.parametrize("kept", ["step", "params", "opt_state", "model_state"])
def test_what_a_donating_step_is_asked_to_keep_is_not_donated(kept):
    case = zoo.running_statistics()
    step, old = build_train_step(case.loss_fn, donate=True, fields=(kept,)), new_state(case)
    before = by_hand.on_host(getattr(old, kept))
    _, context = step(old, case.batch)
    assert differing(getattr(context, kept), before) == []


def test_a_donating_step_takes_a_loss_state_that_shares_arrays_with_the_parameters():
    def loss_with_average(*, model, state, rng, x, y):
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return loss, jax.tree.map(lambda value: 0.9 * value, state), aux

    case = zoo.mlp()
    average = dict(new_state(case).params)
    state = new_state(case, loss_fn_state=average)
    assert not any(state.loss_fn_state[path] is state.params[path] for path in average)  # it owns a copy
    expected = {path: np.asarray(value) * np.float32(0.9) for path, value in average.items()}
    state, _ = build_train_step(loss_with_average, donate=True)(state, case.batch)
    assert differing(state.loss_fn_state, expected) == []


# --- compiled once ----------------------------------------------------------------------------------


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


# --- model state and the order of before and after --------------------------------------------------


@pz.pytree_dataclass
class BatchNorm(pz.nn.Layer):
    """Normalises one feature over the batch, scales it, and keeps running statistics of it."""

    scale: pz.Parameter | pz.ParameterSlot
    bias: pz.Parameter | pz.ParameterSlot
    mean: pz.StateVariable
    variance: pz.StateVariable

    def __call__(self, x: Any, /, **side_inputs: Any) -> Any:
        mean, variance = x.mean(), x.var()
        self.mean.value = 0.75 * self.mean.value + 0.25 * mean
        self.variance.value = 0.75 * self.variance.value + 0.25 * variance
        return (x - mean) / jnp.sqrt(variance) * self.scale.value + self.bias.value


def batch_norm_state(optimizer: optax.GradientTransformation) -> toolshed.TrainState:
    model = BatchNorm(
        pz.Parameter(value=jnp.asarray(1.0), label="scale"),
        pz.Parameter(value=jnp.asarray(0.0), label="bias"),
        pz.StateVariable(value=jnp.asarray(0.0), label="mean"),
        pz.StateVariable(value=jnp.asarray(1.0), label="variance"),
    )
    return new_state(zoo.Case(model, plain_loss, {}), optimizer)


def plain_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    return jnp.mean((model(x) - y) ** 2), state, {}


# x = [0, 2]: mean 1, variance 1, normalised to [-1, 1]. With scale 1 and bias 0 that is also the
# prediction; its errors against y = [0, 3] are [-1, -2], so loss = (1 + 4) / 2 = 2.5,
# d scale = mean(2 · [-1, -2] · [-1, 1]) = -1 and d bias = mean(2 · [-1, -2]) = -3.
FIRST = {"x": np.float32([0, 2]), "y": np.float32([0, 3])}
# x = [1, 5]: mean 3, variance 4, normalised to [-1, 1] again.
SECOND = {"x": np.float32([1, 5]), "y": np.float32([0, 3])}


def adam_by_hand(grads: list[float], rate: float) -> list[float]:
    """Adam's updates for one parameter: Kingma & Ba 2015, algorithm 1."""
    m = v = 0.0
    updates = []
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        updates.append(-rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return updates


@pytest.mark.parametrize(
    "options",
    [{}, {"fields": tuple(FIELDS)}, {"fields": tuple(FIELDS), "donate": True}],
    ids=["looked at", "all named", "all named, donated"],
)
def test_a_context_holds_everything_from_before_the_update(options):
    step = build_train_step(plain_loss, **options)
    state, first = step(batch_norm_state(optax.adam(0.1)), FIRST)
    assert int(first.step) == 0
    assert int(state.step) == 1
    assert float(first.loss_total) == 2.5
    assert {path: float(g) for path, g in first.grads.items()} == {"scale": -1.0, "bias": -3.0}
    assert {path: float(p) for path, p in first.params.items()} == {"scale": 1.0, "bias": 0.0}
    assert {path: float(s) for path, s in first.model_state.items()} == {"mean": 0.0, "variance": 1.0}
    assert int(first.opt_state[0].count) == 0
    # Running statistics: 0.75 · 0 + 0.25 · 1 and 0.75 · 1 + 0.25 · 1.
    assert {path: float(s) for path, s in state.model_state.items()} == {"mean": 0.25, "variance": 1.0}

    held = {path: float(value) for path, value in state.params.items()}
    state, second = step(state, SECOND)
    assert int(second.step) == 1
    assert int(second.opt_state[0].count) == 1
    assert {path: float(p) for path, p in second.params.items()} == held
    assert {path: float(s) for path, s in second.model_state.items()} == {"mean": 0.25, "variance": 1.0}
    # 0.75 · 0.25 + 0.25 · 3 and 0.75 · 1 + 0.25 · 4.
    assert {path: float(s) for path, s in state.model_state.items()} == {"mean": 0.9375, "variance": 1.75}

    # Adam's first update is 0.1 against the sign of the gradient: scale 1.1, bias 0.1. The predictions
    # are then [-1, 1] · 1.1 + 0.1 = [-1, 1.2], the errors [-1, -1.8]:
    # d scale = mean([-2, -3.6] · [-1, 1]) = -0.8, d bias = mean([-2, -3.6]) = -2.8.
    assert held == pytest.approx({"scale": 1.1, "bias": 0.1}, rel=2e-5)  # float32
    assert {path: float(g) for path, g in second.grads.items()} == pytest.approx(
        {"scale": -0.8, "bias": -2.8}, rel=1e-5
    )
    for path, grads in (("scale", [-1.0, -0.8]), ("bias", [-3.0, -2.8])):
        start = {"scale": 1.0, "bias": 0.0}[path]
        assert float(state.params[path]) == pytest.approx(start + sum(adam_by_hand(grads, 0.1)), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"fields": ("params", "updates")}], ids=str)
@pytest.mark.parametrize("model", ["running_statistics", "lora_by_freezing"])
def test_params_plus_updates_are_the_next_params(model, options):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 3)
    step, state = build_train_step(case.loss_fn, **options), new_state(case, optax.adamw(1e-2))
    for batch in data:
        state, context = step(state, batch)
        expected = optax.apply_updates(context.params, context.updates)
        for path, value in state.params.items():
            np.testing.assert_allclose(value, expected[path], rtol=1e-6)
            assert np.any(value != context.params[path])


def test_frozen_parameters_never_change_and_the_others_do():
    case = zoo.lora_by_metadata()
    step, state = build_train_step(case.loss_fn), new_state(case, optax.adamw(1e-1, weight_decay=0.1))
    frozen, trained = by_hand.on_host(state.model_without_params), by_hand.on_host(state.params)
    for batch in batches(case, 20):
        state, context = step(state, batch)
    assert sum(array.size for array in frozen.values()) == 49  # all parameters of the MLP inside
    assert differing(state.model_without_params, frozen) == []
    assert sorted(differing(state.params, trained)) == sorted(trained)
    assert set(context.grads) == set(context.updates) == set(trained)
    now = {parameter.label: parameter for parameter in parameters_of(state.model)}
    for parameter in parameters_of(zoo.mlp().model):
        assert now[parameter.label].metadata["trainable"] is False
        assert differing(now[parameter.label].value, parameter.value) == []


@pytest.mark.parametrize("k", [1, 5])
def test_the_loss_function_s_state_is_carried_from_step_to_step(k):
    def counting_loss(*, model, state, rng, x, y):
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return loss, {"calls": state["calls"] + 1, "sum": state["sum"] + loss}, aux

    case, data = zoo.mlp(), batches(zoo.mlp(), 5)
    state = new_state(case, loss_fn_state={"calls": 0, "sum": 0.0})
    losses = by_hand.train(case, optax.adam(1e-2), jax.random.key(1), data).losses
    state = run(build_train_step(counting_loss, steps_per_call=k), state, data)
    assert int(state.loss_fn_state["calls"]) == 5
    assert float(state.loss_fn_state["sum"]) == pytest.approx(sum(losses), rel=1e-5)


# --- keys -------------------------------------------------------------------------------------------


def loss_that_shows_its_key(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    loss, state, _ = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
    return loss, state, {"key": jax.random.key_data(rng)}


@pytest.mark.parametrize(
    "root",
    [lambda: jax.random.key(3), lambda: jax.random.PRNGKey(3), lambda: jax.random.key(3, impl="rbg")],
    ids=["typed", "raw", "rbg"],
)
def test_the_key_of_a_step_is_folded_from_the_root_key_and_the_step_s_number(root):
    case, root = zoo.mlp(), root()
    step = build_train_step(loss_that_shows_its_key)
    state = new_state(case, root_rng=root).replace(step=jnp.int32(7))
    for number in (7, 8, 9):
        state, context = step(state, case.batch)
        expected = jax.random.key_data(jax.random.fold_in(root, number))
        assert differing(context.aux["key"], expected) == []
        assert differing(context.rng, jax.random.fold_in(root, number)) == []
    assert state.root_rng is root


def test_each_of_the_steps_in_one_call_has_its_own_key():
    case, root = zoo.mlp(), jax.random.key(3)
    step = build_train_step(loss_that_shows_its_key, steps_per_call=4)
    _, context = step(new_state(case, root_rng=root), toolshed.data.stack([case.batch] * 4))
    expected = [jax.random.key_data(jax.random.fold_in(root, number)) for number in range(4)]
    assert differing(context.aux["key"], np.stack(expected)) == []


def test_a_state_with_another_root_key_draws_other_numbers_in_the_same_program():
    case = zoo.dropout_mlp()
    optimizer, step = optax.sgd(1e-2), build_train_step(case.loss_fn, fields=("loss_total",))
    losses = [
        float(step(new_state(case, optimizer, root_rng=jax.random.key(seed)), case.batch)[1].loss_total)
        for seed in (1, 2, 1)
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    assert step.traces == 1


# --- gradients --------------------------------------------------------------------------------------


def flat_loss(case: zoo.Case, state: toolshed.TrainState) -> Any:
    """The loss of the case's batch as a function of all parameters in one vector."""

    def loss(vector: Any) -> Any:
        model = toolshed.models.bind(state.model_without_params, unravel(vector), state.model_state)
        return case.loss_fn(model=model, state=None, rng=jax.random.key(0), **case.batch)[0]

    start, unravel = ravel_pytree(dict(state.params))
    return loss, start


@pytest.mark.parametrize("model", ["mlp", "shared_parameter"])
def test_gradients_equal_finite_differences(model):
    """A training package of another language once scaled each gradient by the loss; this finds it."""
    with jax.enable_x64(True):
        wide = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float64))
        case = zoo.ZOO[model]()
        case = case._replace(batch=wide(case.batch))
        state = new_state(case)
        state = state.replace(params=wide(state.params), opt_state=optax.adam(1e-2).init(wide(state.params)))
        loss, start = flat_loss(case, state)
        nudges = 1e-6 * jnp.eye(start.size)
        differences = (jax.vmap(loss)(start + nudges) - jax.vmap(loss)(start - nudges)) / 2e-6
        _, context = build_train_step(case.loss_fn, fields=("grads", "loss_total"))(state, case.batch)
        grads = ravel_pytree(context.grads)[0]
        np.testing.assert_allclose(grads, differences, rtol=1e-6, atol=1e-8)
        scaled = grads * context.loss_total
        assert np.abs(scaled - differences).max() > 0.01  # the loss is not near 1: scaling would show


def test_a_constant_added_to_the_loss_leaves_the_gradients_as_they_are():
    def raised_loss(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + 100.0, state, aux

    case = zoo.mlp()
    _, plain = build_train_step(case.loss_fn, fields=("grads", "loss_total"))(new_state(case), case.batch)
    _, raised = build_train_step(raised_loss, fields=("grads", "loss_total"))(new_state(case), case.batch)
    assert float(raised.loss_total) == pytest.approx(float(plain.loss_total) + 100)
    for path, grad in plain.grads.items():
        np.testing.assert_allclose(raised.grads[path], grad, rtol=1e-6)


def test_a_gradient_strategy_decides_the_gradients_and_applies_nothing():
    def halved(loss_fn, params, carry, batch, rng):
        loss, kept, grads = toolshed.gradients.backprop(loss_fn, params, carry, batch, rng)
        return loss, kept, jax.tree.map(lambda g: g / 2, grads)

    case = zoo.mlp()
    plain = build_train_step(case.loss_fn, fields=("grads",))
    half = build_train_step(case.loss_fn, fields=("grads",), gradient_strategy=halved)
    state = new_state(case, optax.sgd(1.0))
    _, expected = plain(state, case.batch)
    after, context = half(state, case.batch)
    for path, grad in context.grads.items():
        np.testing.assert_allclose(grad, expected.grads[path] / 2, rtol=1e-6)
        np.testing.assert_allclose(after.params[path], state.params[path] - grad, rtol=1e-6)


# --- optimisers that look at the loss ---------------------------------------------------------------


def quadratic_state(optimizer: optax.GradientTransformation) -> toolshed.TrainState:
    model = BatchNorm(
        pz.Parameter(value=jnp.asarray(4.0), label="scale"),
        pz.Parameter(value=jnp.asarray(-2.0), label="bias"),
        pz.StateVariable(value=jnp.asarray(0.0), label="mean"),
        pz.StateVariable(value=jnp.asarray(1.0), label="variance"),
    )
    return new_state(zoo.Case(model, plain_loss, {}), optimizer)


def test_reduce_on_plateau_sees_the_loss_of_each_step():
    # The learning rate is 0, so the loss never improves: after the first step, which sets the best loss,
    # each `patience` of 2 further steps halves the scale.
    optimizer = optax.chain(
        optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=1e-4)
    )
    step, state, scales = build_train_step(plain_loss), quadratic_state(optimizer), []
    for _ in range(7):
        state, context = step(state, FIRST)
        scales.append(float(state.opt_state[-1].scale))
    assert scales == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert float(state.opt_state[-1].best_value) == float(context.loss_total)


def test_lbfgs_with_its_line_search_solves_a_quadratic():
    # x is normalised to [-1, 1]: the least squares fit of y = [0, 3] is scale 1.5, bias 1.5.
    step, state = build_train_step(plain_loss), quadratic_state(optax.lbfgs())
    for _ in range(8):
        state, context = step(state, FIRST)
    assert {path: float(p) for path, p in state.params.items()} == pytest.approx(
        {"scale": 1.5, "bias": 1.5}, abs=1e-4
    )
    plain = quadratic_state(optax.sgd(1e-2))
    for _ in range(8):
        plain, slow = step(plain, FIRST)
    assert float(context.loss_total) < 1e-6 < 1 < float(slow.loss_total)
    # The running mean moved once a step, however often the line search called the loss function.
    assert float(state.model_state["mean"]) == pytest.approx(1 - 0.75**8, rel=1e-6)


# --- check_finite -----------------------------------------------------------------------------------


def test_check_finite_names_the_loss_and_the_gradients_and_leaves_the_state_unchanged():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, check_finite=True)
    state, _ = step(new_state(case), case.batch)
    before = values_of(state)
    broken = {**case.batch, "y": case.batch["y"].at[2].set(jnp.nan)}
    with pytest.raises(
        NonFiniteError, match=r"^Step 1 is not finite in the loss, grads/mlp/Affine_0/AddBias\.bias"
    ) as caught:
        step(state, broken)
    assert caught.value.step == 1
    assert "and 1 more" in str(caught.value)  # the loss and four gradients, of which four are listed
    assert differing(values_of(state), before) == []
    state, _ = step(state, case.batch)
    assert int(state.step) == 2


@pytest.mark.parametrize("path", sorted(new_state(zoo.mlp()).params))
def test_check_finite_names_the_one_gradient_that_is_infinite(path):
    def loss_with_a_cusp(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        (parameter,) = [found for found in parameters_of(model) if found.label == path]
        values = jax.tree.leaves(parameter.value)[0]
        # √|v - v₀| at v = v₀: the loss stays finite, and its slope is infinite.
        return loss + jnp.sqrt(jnp.abs(values - jax.lax.stop_gradient(values))).sum(), state, aux

    case = zoo.mlp()
    with pytest.raises(NonFiniteError, match=rf"is not finite in grads/{path}\. The state"):
        build_train_step(loss_with_a_cusp, check_finite=True)(new_state(case), case.batch)


@pytest.mark.parametrize("fields", [None, (), ("grads",)])
def test_check_finite_changes_no_bit_of_a_good_step_and_adds_no_field(fields):
    case = zoo.mlp()
    checked = build_train_step(case.loss_fn, fields=fields, check_finite=True)
    plain = build_train_step(case.loss_fn, fields=fields)
    (state, context), (expected, other) = (
        checked(new_state(case), case.batch),
        plain(new_state(case), case.batch),
    )
    assert differing(values_of(state), values_of(expected)) == []
    assert context.filled == other.filled


def test_without_check_finite_a_nan_trains_on():
    case = zoo.mlp()
    broken = {**case.batch, "x": case.batch["x"] * jnp.nan}
    state, context = build_train_step(case.loss_fn)(new_state(case), broken)
    assert np.isnan(context.loss_total)
    assert all(np.isnan(value).all() for path, value in state.params.items() if "Affine_1" in path)


# --- metrics and records ----------------------------------------------------------------------------


def classification_loss(*, model: Any, state: Any, rng: Any, x: Any, label: Any, mask: Any) -> Any:
    logits = model(pz.nx.wrap(x).tag("batch", "features")).untag("batch", "features").unwrap()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.where(mask, losses, 0).sum() / mask.sum(), state, {"preds": logits, "losses": losses}


def classification_state(**parts: Any) -> toolshed.TrainState:
    model = zoo.MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 3])
    return new_state(zoo.Case(model, classification_loss, {}), **parts)


def classification_batches(n: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(6, 4)).astype(np.float32),
            "label": rng.integers(0, 3, 6).astype(np.int32),
            "mask": np.arange(6) < count,
        }
        for count in rng.integers(1, 7, n)
    ]


def test_metrics_gathered_in_the_step_equal_those_recomputed_by_hand():
    metrics = toolshed.metrics.collection(
        accuracy=toolshed.metrics.Accuracy(mask="batch/mask"),
        loss=toolshed.metrics.Mean("aux/losses", mask="batch/mask"),
        steps=toolshed.metrics.Mean("loss_total"),
    )
    data = classification_batches(7)
    step, state = build_train_step(classification_loss), classification_state(metrics=metrics)
    right, losses, totals = [], [], []
    for batch in data:
        state, context = step(state, batch)
        mask = batch["mask"]
        hits = np.asarray(context.preds).argmax(-1) == batch["label"]
        right.extend(hits[mask])
        losses.extend(np.asarray(context.aux["losses"])[mask])
        totals.append(float(context.loss_total))
        alone = metrics.with_states(context.metric_states).compute()["accuracy"]  # of this batch alone
        assert alone == pytest.approx(hits[mask].mean(), rel=1e-6)
    computed = state.compute_metrics()
    assert computed == pytest.approx(
        {"accuracy": np.mean(right), "loss": np.mean(losses), "steps": np.mean(totals)}, rel=1e-5
    )
    assert computed["loss"] != pytest.approx(computed["steps"], rel=1e-3)  # short batches weigh less
    assert all(np.isnan(value) for value in state.reset_metrics().compute_metrics().values())


def test_metrics_do_not_depend_on_how_many_steps_a_call_makes():
    metrics = toolshed.metrics.collection(loss=toolshed.metrics.Mean("aux/losses", mask="batch/mask"))
    computed = []
    for k in (1, 7):
        step = build_train_step(classification_loss, fields=(), steps_per_call=k)
        state = run(step, classification_state(metrics=metrics), classification_batches(7))
        computed.append(state.compute_metrics()["loss"])
    assert computed[0] == pytest.approx(computed[1], rel=1e-6)
    assert np.isfinite(computed[0])


def test_metrics_change_no_bit_of_the_training():
    metrics = toolshed.metrics.collection(accuracy=toolshed.metrics.Accuracy())
    step, data = build_train_step(classification_loss, fields=()), classification_batches(5)
    without = run(step, classification_state(), data)
    assert (
        differing(values_of(run(step, classification_state(metrics=metrics), data)), values_of(without)) == []
    )


def test_any_scalar_of_the_context_can_be_recorded():
    def loss_with_norm(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "largest": jnp.abs(aux["preds"]).max()}

    case, data = zoo.mlp(), batches(zoo.mlp(), 5)
    record = ("aux/largest", "loss_total", "step")
    step = build_train_step(loss_with_norm, record=record)
    state, tape, seen = new_state(case), step.tape(capacity=2), []
    assert tape.names == step.record == record
    for batch in data:
        state, context = step(state, batch, tape)
        seen.append([context.aux["largest"], context.loss_total, context.step])
    rows = tape.take()
    assert rows.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(rows.values, np.array(seen, np.float32), rtol=1e-6)


def test_recording_changes_no_bit_of_the_training():
    case, data = zoo.mlp(), batches(zoo.mlp(), 5)
    step = build_train_step(case.loss_fn, fields=())
    plain = run(step, new_state(case), data)
    state, tape = new_state(case), step.tape()
    for batch in data:
        state, _ = step(state, batch, tape)
    assert differing(values_of(state), values_of(plain)) == []


def test_a_tape_that_two_steps_write_to_loses_no_row():
    case, data = zoo.mlp(), batches(zoo.mlp(), 4)
    single = build_train_step(case.loss_fn, fields=())
    double = build_train_step(case.loss_fn, fields=(), steps_per_call=2)
    tape, state = single.tape(capacity=3), new_state(case)
    for batch in data[:2]:
        state, _ = single(state, batch, tape)
    double(state, toolshed.data.stack(data[2:]), tape)  # the block has room for one row more, not for two
    assert tape.take().steps.tolist() == [0, 1, 2, 3]


def test_a_tape_with_fewer_rows_than_a_call_writes_is_an_error():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=(), steps_per_call=2)
    with pytest.raises(ValueError, match="capacity"):
        step(new_state(case), toolshed.data.stack([case.batch] * 2), toolshed.Tape(step.record, 1))


def test_a_tape_of_other_scalars_is_an_error():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=())
    with pytest.raises(ValueError, match="loss_total"):
        step(new_state(case), case.batch, toolshed.Tape(("loss_total", "step"), 8))


def test_one_path_to_record_may_be_given_as_a_string():
    assert build_train_step(zoo.regression_loss, record="loss_total").record == ("loss_total",)


# --- fields -----------------------------------------------------------------------------------------


def test_a_step_fills_the_fields_that_were_asked_for_and_no_other():
    case = zoo.mlp()
    for fields in ((), ("grads",), ("loss_total", "batch"), "grads"):
        asked = (fields,) if isinstance(fields, str) else fields
        _, context = build_train_step(case.loss_fn, fields=fields)(new_state(case), case.batch)
        assert set(context.filled) == set(asked)
    _, context = build_train_step(case.loss_fn)(new_state(case), case.batch)
    assert set(FIELDS) - set(context.filled) == {
        "interms",
        "metric_states",
        "summary_states",
    }  # nobody gave them
    with pytest.raises(FieldNotFilled, match=r"note values with toolshed"):
        _ = context.interms


def test_what_the_loss_function_gives_in_aux_fills_the_fields_of_those_names():
    given = {"preds": 1.0, "interms": {"a": 2.0}, "loss_states": {"b": 3.0}, "summary_states": {"c": 4.0}}

    def generous_loss(*, model, state, rng, x, y):
        loss, state, _ = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, jax.tree.map(jnp.asarray, given)

    case = zoo.mlp()
    _, context = build_train_step(generous_loss)(new_state(case), case.batch)
    assert {name: jax.tree.map(float, getattr(context, name)) for name in given} == given
    state = context.get_aux_state(return_losses=True, return_summaries=True)
    assert state.loss_states is context.loss_states
    assert state.summary_states is context.summary_states
    assert state.metric_states is None


def test_aux_may_be_anything_jax_can_return():
    for aux in (None, [jnp.ones(2)]):

        def loss_with_aux(*, model, state, rng, x, y, aux=aux):
            return zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)[0], state, aux

        case = zoo.mlp()
        _, context = build_train_step(loss_with_aux, fields=("aux",))(new_state(case), case.batch)
        assert jax.tree.structure(context.aux) == jax.tree.structure(aux)


# --- several steps in one call ----------------------------------------------------------------------


def test_several_steps_in_one_call_record_what_single_steps_record():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), 12)
    single, many = build_train_step(case.loss_fn), build_train_step(case.loss_fn, steps_per_call=4)
    tapes = single.tape(capacity=5), many.tape(capacity=5)  # a block has no room for two calls
    one, four, losses, predictions = new_state(case), new_state(case), [], []
    for batch in data:
        one, context = single(one, batch, tapes[0])
        losses.append(context.loss_total)
        predictions.append(context.preds)
    for at in (0, 4, 8):
        four, context = many(four, toolshed.data.stack(data[at : at + 4]), tapes[1])
        assert context.loss_total.shape == (4,)
        assert context.preds.shape == (4, 8, 1)
        np.testing.assert_allclose(context.loss_total, losses[at : at + 4], rtol=1e-5)
        np.testing.assert_allclose(context.preds, predictions[at : at + 4], rtol=1e-4, atol=1e-6)
    assert differing(values_of(four), values_of(one)) == []
    rows, expected = tapes[1].take(), tapes[0].take()
    assert rows.steps.tolist() == expected.steps.tolist() == list(range(12))
    np.testing.assert_allclose(rows.values, expected.values, rtol=1e-5)


def test_fields_that_are_known_before_the_call_are_those_before_its_first_step():
    case, data = zoo.running_statistics(), batches(zoo.running_statistics(), 3)
    step = build_train_step(case.loss_fn, steps_per_call=3, fields=tuple(FIELDS))
    state = new_state(case)
    before, (_, context) = values_of(state), step(state, toolshed.data.stack(data))
    assert int(context.step) == 0
    for name in ("params", "opt_state", "model_state"):
        kept = {path: value for path, value in before.items() if path.startswith(f"{name}/")}
        assert differing({name: getattr(context, name)}, kept) == []
    for name in ("grads", "updates"):
        shapes = {path: value.shape for path, value in getattr(context, name).items()}
        assert shapes == {path: (3, *value.shape) for path, value in state.params.items()}


@pytest.mark.parametrize(("entry", "value"), [("y", np.zeros((2, 8, 1))), ("x", np.float32(1))])
def test_an_entry_without_the_axis_of_the_steps_is_named(entry, value):
    case = zoo.mlp()
    step, state = build_train_step(case.loss_fn, steps_per_call=3), new_state(case)
    good = toolshed.data.stack([case.batch] * 3)
    with pytest.raises(BatchError, match=rf"^batch/{entry} is float.*needs a first axis of 3"):
        step(state, {**good, entry: np.asarray(value, np.float32)})
    assert int(step(state, good)[0].step) == 3
