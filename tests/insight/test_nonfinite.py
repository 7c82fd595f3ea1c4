"""The first value that is not finite: planted faults, and computations without one."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import optax
import pytest
from penzai import pz

import toolshed
from tests.insight.faults import FAULTS, HEALTHY, X, a_step, small
from tests.training.by_hand import count_compilations
from toolshed.errors import StateError, ToolshedError
from toolshed.insight import first_nonfinite, source


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name):
    expected = FAULTS[name]
    found = first_nonfinite(*expected.build())
    fault = found.fault
    assert not found.finite
    assert fault is not None
    assert fault.primitive == expected.primitive, found
    assert fault.phase == expected.phase
    assert tuple(map(str, fault.iterations)) == expected.iterations
    if expected.line is not None:
        assert fault.source is not None
        assert (fault.source.file, fault.source.line) == (expected.build.__code__.co_filename, expected.line)
    if expected.index is not None:
        assert fault.index == expected.index
    if expected.near is not None:
        assert fault.near[0] == expected.near
    if expected.became_nan is not None:
        assert found.became_nan is not None
        assert found.became_nan.primitive == expected.became_nan
    assert found.reaches


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_finite_is_said_to_be(name):
    found = first_nonfinite(*HEALTHY[name]())
    assert found.finite, found
    assert found.fault is None
    assert repr(found) == "Everything is finite"


def test_there_are_as_many_as_promised():
    assert len(FAULTS) >= 30
    assert len(HEALTHY) >= 20


# --- the answer ---------------------------------------------------------------------------------------


def ratio(x: jax.Array, weights: dict[str, jax.Array]) -> jax.Array:
    with jax.named_scope("head"):
        scores = x @ weights["w"]
        return jnp.log(scores).mean()


def test_the_answer_reads_well():
    found = first_nonfinite(ratio, jnp.eye(3), weights={"w": jnp.array([1.0, 0.0, 2.0])})
    line = ratio.__code__.co_firstlineno + 3
    assert repr(found).splitlines() == [
        "log gives -∞ for finite arguments",
        f"  at       test_nonfinite.py:{line} in ratio",
        "             return jnp.log(scores).mean()",
        "  in       forward pass, head",
        "  result   float32[3]: -∞ at [1]",
        "  operand  value float32[3], 0 there, from 0 to 2",
        "  near     weights/w, x",
        "  reaches  result",
    ]


def test_the_answer_tells_what_the_operation_was_given():
    found = first_nonfinite(lambda x, y: x / y, jnp.array([1.0, 6.0, 8.0]), jnp.array([2.0, 0.0, 0.0]))
    fault = found.fault
    assert fault is not None
    assert (fault.value, fault.count, fault.indices) == (math.inf, 2, ((1,), (2,)))
    assert [(operand.name, operand.value) for operand in fault.operands] == [("x", 6), ("y", 0)]
    assert [operand.summary.max for operand in fault.operands if operand.summary] == [8, 2]
    assert fault.result == "float32[3]"
    assert found.operations == 1


def test_an_infinity_that_becomes_nan_is_followed():
    found = first_nonfinite(lambda x: jnp.exp(x) - jnp.exp(x), jnp.array([1e3]))
    assert found.fault is not None
    assert found.became_nan is not None
    assert (found.fault.primitive, found.became_nan.primitive) == ("exp", "sub")
    assert "\n  then     sub makes NaN of it at test_nonfinite.py:" in repr(found)


def test_an_argument_that_is_not_finite_is_named():
    found = first_nonfinite(lambda batch: batch["x"].sum(), {"x": jnp.ones((2, 3)).at[1, 2].set(jnp.nan)})
    assert repr(found).splitlines() == [
        "batch/x holds NaN",
        "  result   float32[2,3]: NaN at [1, 2]",
        "  reaches  result",
    ]


def test_a_value_written_in_the_program_is_named_as_such():
    found = first_nonfinite(lambda x: x * jnp.nan, X)
    assert repr(found).startswith(
        "NaN is written in the program, where mul takes it\n  at       test_nonfinite.py:"
    )
    assert repr(first_nonfinite(lambda x: jnp.array([1, jnp.inf]), X)).startswith(
        "∞ is written in the program"
    )


def test_all_results_that_are_not_finite_are_listed():
    found = first_nonfinite(lambda x: {"a": jnp.log(x), "b": x, "c": [jnp.log(x) * 2, 1 / x]}, X)
    assert found.reaches == ("result/a", "result/c/0", "result/c/1")


# --- compiled functions and their replay ------------------------------------------------------------


def test_a_compiled_function_is_the_measure_and_a_replay_that_differs_says_so():
    def f(x):
        return x * 1e30 * 1e10  # a compiler multiplies the two numbers first, and gets infinity

    x = jnp.float32(1e-30)
    assert not math.isfinite(jax.jit(f)(x))
    found = first_nonfinite(jax.jit(f), x)
    assert found.vanished
    assert not found.finite
    assert found.fault is None
    assert repr(found).splitlines()[:2] == [
        "The compiled function is not finite in result.",
        "Replayed operation by operation it is finite. A compiler that fuses operations rounds differently: a"
        " value at the very edge of its type overflows in one order and not in the other. Look for large"
        " values: toolshed.insight.leaf_statistics(…).worst().",
    ]
    assert first_nonfinite(f, x).finite  # not compiled, it is


def test_a_compiled_function_that_is_finite_is_not_replayed():
    found = first_nonfinite(jax.jit(lambda x: x * 2), X)
    assert (found.compiled_finite, found.replay_finite, found.operations) == (True, None, 0)
    found = first_nonfinite(lambda x: x * 2, X)
    assert (found.compiled_finite, found.replay_finite, found.operations) == (None, True, 1)


def test_what_cannot_change_the_answer_is_not_replayed():
    def f(x):
        return jnp.log(x).sum()

    function = jax.jit(jax.value_and_grad(f))
    whole = first_nonfinite(jax.value_and_grad(f), X)
    found = first_nonfinite(function, X)
    assert found.operations < whole.operations
    assert found.fault is not None
    assert (found.fault.primitive, found.fault.index) == ("log", (1,))
    assert found.reaches == whole.reaches == ("result/0", "result/1")


def test_an_earlier_cause_of_another_result_is_waited_for():
    def f(x):
        early = jnp.log(x)  # reaches the last result alone
        return jnp.sqrt(x - 1).sum(), early.sum()

    found = first_nonfinite(jax.jit(f), X)
    assert found.fault is not None
    assert found.fault.primitive == "log"
    assert found.reaches == ("result/0", "result/1")


def test_what_a_function_donates_is_not_lost():
    x = jnp.zeros(4)
    found = first_nonfinite(jax.jit(lambda x: 1 / x, donate_argnums=0), x)
    assert found.fault is not None
    assert x.sum() == 0


def test_a_step_that_donates_leaves_the_state_alone_and_a_step_that_checks_is_looked_into():
    for options in ({"donate": True}, {"check_finite": True}):
        step, state, batch = a_step(**options)
        bad = {**batch, "y": batch["y"].at[0].set(jnp.inf)}
        found = first_nonfinite(step, state, bad)
        assert found.compiled_finite is False
        assert found.fault is not None
        assert found.fault.near == ("batch/y",)
        state.check_alive()


def test_the_compiled_step_of_a_trainer_is_used_where_there_is_one():
    case = small()
    trainer = toolshed.Trainer(case.model, optax.sgd(0.1), case.loss_fn)
    state = trainer.init(jax.random.key(0))
    trainer.step(state, case.batch)
    with count_compilations() as compiled:
        assert first_nonfinite(trainer, state, case.batch).finite
    assert "_trace" not in compiled


# --- what else goes in --------------------------------------------------------------------------------


def test_a_model_among_the_arguments_gives_its_parameters_names():
    model = small().model
    model.sublayers[0].sublayers[0].weights.value = pz.nx.wrap(
        jnp.array([[0.0], [-1.0]]), "features", "features_out"
    )

    def f(model, x):
        return jnp.log(model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features"))

    found = first_nonfinite(f, model, jnp.ones((1, 2)))
    assert found.fault is not None
    assert found.fault.near[0] == "model/0/mlp/Affine_0/AddBias.bias"


def test_arguments_that_are_no_arrays_are_taken_as_they_are():
    def f(x, power, *, scale, mode):
        assert mode == "fast"
        return x**power * scale if power > 0 else x

    found = first_nonfinite(f, X * 1e30, 2, scale=1.0, mode="fast")
    assert found.fault is not None
    assert found.fault.primitive == "integer_pow"


def test_named_arrays_go_in_and_come_out():
    x = pz.nx.wrap(jnp.array([1.0, 0.0]), "a")
    found = first_nonfinite(lambda x: pz.nx.nmap(jnp.log)(x), x)
    assert found.fault is not None
    assert found.fault.near == ("x",)


def test_complex_numbers_are_followed():
    found = first_nonfinite(lambda x: 1 / x, jnp.array([1 + 1j, 0j]))
    assert found.fault is not None
    assert (found.fault.primitive, found.fault.index) == ("div", (1,))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (3,),
            ToolshedError,
            r"^Expected a function or a training step, got int 3\. Pass the function itself",
        ),
        (
            (lambda: a_step()[0], 1),
            ToolshedError,
            r"^A training step takes a state and a batch; got 1 arguments\.",
        ),
        ((lambda: a_step()[0], 1, {}), StateError, r"^Expected a TrainState, got int 1\."),
        ((lambda: a_step()[0], None, 1), StateError, r"^Expected a TrainState"),
    ],
)
def test_a_wrong_call_is_an_error_that_says_what_was_expected(arguments, error, message):
    first, *rest = arguments
    with pytest.raises(error, match=message):
        first_nonfinite(first() if callable(first) else first, *rest)


def test_a_state_that_was_given_away_is_an_error():
    step, state, batch = a_step()
    jax.tree.map(lambda leaf: leaf.delete(), state.params)
    with pytest.raises(StateError, match=r"^The arrays of this state are gone"):
        first_nonfinite(step, state, batch)


# --- lines --------------------------------------------------------------------------------------------


def test_a_line_of_a_library_is_told_where_there_is_none_of_the_user_s():
    fault = first_nonfinite(*FAULTS["an_optimizer_without_its_epsilon"].build()).fault
    assert fault is not None
    assert fault.source is not None
    assert "optax" in fault.source.file
    assert fault.source.text


def test_a_function_that_was_traced_before_elsewhere_is_found_where_it_is_called_now():
    shared = jax.jit(jnp.log)
    shared(X)  # traced here first

    def f(x):
        return shared(x)

    fault = first_nonfinite(f, X).fault
    assert fault is not None
    assert fault.source is not None
    assert fault.source.line == f.__code__.co_firstlineno + 1


def test_without_jax_s_note_of_the_source_all_else_is_still_found(monkeypatch):
    monkeypatch.setattr(source, "_frames", lambda eqn: iter(()))
    fault = first_nonfinite(ratio, jnp.eye(3), weights={"w": jnp.zeros(3)}).fault
    assert fault is not None
    assert fault.source is None
    assert (fault.primitive, fault.near[0]) == ("log", "weights/w")
    assert source.source_of([object()]) is None


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/home/me/project/model.py", "theirs"),
        ("/tmp/ipykernel_12/34.py", "theirs"),
        ("<ipython-input-3-abc>", "theirs"),
        ("/venv/lib/python3.11/site-packages/optax/_src/transform.py", "framework"),
        ("/venv/lib/python3.11/site-packages/jax/_src/lax/lax.py", "jax"),
        ("/venv/lib/python3.11/site-packages/their_package/model.py", "installed"),
        ("<@beartype(toolshed.insight.replay.Replay.run) at 0x1>", "own"),
        (source.__file__, "own"),
        (math.__spec__.origin if math.__spec__ and math.__spec__.has_location else json.__file__, "own"),
    ],
)
def test_whose_code_a_file_is(file, kind):
    assert source._kind(file) == kind


def test_scopes_are_told_without_jax_s_marks():
    assert source.plain_scope("transpose(jvp(encoder))/layer_0/jvp()/vmap(head)") == "encoder/layer_0/head"
    assert source.plain_scope("checkpoint/rematted_computation/block") == "checkpoint/block"
    assert source.plain_scope("optimizer update") == ""
