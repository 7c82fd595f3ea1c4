"""A Context is read by path, and says how to ask for what it does not hold."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

from tests import zoo
from tests.training.by_hand import differing, new_state
from toolshed import Context, build_train_step
from toolshed.errors import ContextKeyError, FieldNotFilled
from toolshed.training.context import FIELDS

GRADS = {
    "mlp/Affine_0/Linear.weights": jnp.ones((4, 8)),
    "mlp/Affine_0/AddBias.bias": jnp.ones(8) * 2,
    "mlp/Affine_1/Linear.weights": jnp.ones((8, 1)) * 3,
    "mlp/Affine_1/AddBias.bias": jnp.ones(1) * 4,
}


def small(**fields: Any) -> Context:
    batch = {"image": jnp.zeros((2, 3)), "label": jnp.arange(2)}
    return Context(step=jnp.int32(5), batch=batch, grads=GRADS, loss_total=jnp.float32(0.5), **fields)


def test_the_fields_are_in_the_order_in_which_a_step_fills_them():
    assert list(FIELDS) == [
        "step", "batch", "params", "model_state", "opt_state", "rng",  # known before the forward pass
        "aux", "preds", "interms", "loss_states", "loss_total",  # from the forward pass
        "grads", "updates", "metric_states", "summary_states",  # from the backward pass and after
    ]  # fmt: skip
    shuffled = Context(grads={}, loss_total=1.0, step=0, params={}, batch={})
    assert shuffled.filled == ("step", "batch", "params", "loss_total", "grads")


def test_a_path_gives_a_leaf_or_a_subtree():
    context = small()
    assert context["loss_total"] is context.loss_total
    assert context["batch/label"] is context.batch["label"]
    assert context["batch"] is context.batch
    assert context["grads/mlp/Affine_0/AddBias.bias"] is GRADS["mlp/Affine_0/AddBias.bias"]


def test_a_path_goes_into_tuples_structs_and_named_arrays_as_they_are():
    optimizer = optax.chain(optax.scale_by_adam(), optax.scale(-1.0))
    named = pz.nx.wrap(jnp.ones((2, 3))).tag("batch", "features")
    state = optimizer.init({"w/x": jnp.ones(2)})
    context = Context(step=0, batch={}, opt_state=state, aux={"hidden": [named]})
    assert context["opt_state/0/count"] is state[0].count
    assert context["opt_state/0/mu/w/x"] is state[0].mu["w/x"]
    assert context["opt_state/0"] is state[0]
    assert context["aux/hidden/0"] is named
    assert context.flatten()["aux/hidden/0"] is named


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("grads/mlp/*/Linear.weights", ["Affine_0/Linear.weights", "Affine_1/Linear.weights"]),
        ("grads/mlp/Affine_0/Linear.*", ["Affine_0/Linear.weights"]),
        ("grads/**/weights", ["Affine_0/Linear.weights", "Affine_1/Linear.weights"]),
        ("**/bias", ["Affine_0/AddBias.bias", "Affine_1/AddBias.bias"]),
        ("grads/mlp/Affine_1/**", ["Affine_1/Linear.weights", "Affine_1/AddBias.bias"]),
        ("grads/mlp/*_0/*.*", ["Affine_0/Linear.weights", "Affine_0/AddBias.bias"]),
    ],
)
def test_a_star_stands_for_part_of_a_segment_and_two_for_any_number(pattern, expected):
    found = small()[pattern]
    assert set(found) == {f"grads/mlp/{path}" for path in expected}
    assert all(found[path] is GRADS[path.removeprefix("grads/")] for path in found)


@pytest.mark.parametrize("pattern", ["grads/mlp/*", "grads/*/weights", "*/label/*", "mlp/**"])
def test_a_star_does_not_reach_over_a_segment(pattern):
    with pytest.raises(ContextKeyError, match="in this Context"):
        small()[pattern]


def test_two_stars_alone_give_every_leaf():
    context = small()
    assert context["**"] == context.flatten()
    assert set(context["*"]) == {"step", "loss_total"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("batch/lable", "No 'batch/lable' in this Context. Did you mean 'batch/label'"),
        (
            "grads/mlp/Affine_0/Linear.weight",
            "No 'grads/mlp/Affine_0/Linear.weight' in this Context."
            " Did you mean 'grads/mlp/Affine_0/Linear.weights'",
        ),
        ("los_total", "No 'los_total' in this Context. Did you mean 'loss_total'"),
        ("step/count", "No 'step/count' in this Context."),
        ("", "No '' in this Context. There is "),
    ],
)
def test_a_path_that_names_nothing_is_an_error_that_names_the_nearest(path, message):
    with pytest.raises(ContextKeyError) as caught:
        small()[path]
    assert str(caught.value).startswith(message)  # the text itself, not the repr of a KeyError
    assert isinstance(caught.value, KeyError)


def test_the_nearest_paths_are_each_named_once():
    with pytest.raises(ContextKeyError) as caught:
        small()["los_total"]
    assert str(caught.value).count("'loss_total'") == 1


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_was_not_filled_is_an_error_that_says_how_to_ask_and_never_none(field):
    context = Context(step=0, batch={})
    if field in ("step", "batch"):
        assert getattr(context, field) is not None
        return
    with pytest.raises(FieldNotFilled) as caught:
        getattr(context, field)
    assert str(caught.value) == f"This step did not fill Context.{field}; {FIELDS[field]}."
    assert any(
        word in FIELDS[field] for word in (f"fields=('{field}',)", f"'{field}': …", "metrics=…", "tap(")
    )
    for path in (field, f"{field}/x", f"{field}/*"):
        with pytest.raises(FieldNotFilled, match=rf"Context\.{field};"):
            context[path]
        assert path not in context
    assert not hasattr(context, field)
    assert getattr(context, field, "a default") == "a default"


def test_the_advice_of_an_unfilled_field_works():
    case = zoo.mlp()
    with pytest.raises(FieldNotFilled, match=r"build_train_step\(…, fields=\('grads',\)\)"):
        _ = build_train_step(case.loss_fn, fields=())(new_state(case), case.batch)[1].grads
    _, context = build_train_step(case.loss_fn, fields=("grads",))(new_state(case), case.batch)
    assert set(context.grads) == set(new_state(case).params)


def test_a_field_that_is_none_on_purpose_is_none():
    assert Context(step=0, batch={}, aux=None).aux is None
    assert Context(step=0, batch={}, aux=None).filled == ("step", "batch", "aux")


def test_naming_one_field_leaves_the_others_unfilled():
    case = zoo.mlp()
    _, context = build_train_step(case.loss_fn, fields=("grads",))(new_state(case), case.batch)
    assert context.filled == ("grads",)
    assert "grads/mlp/Affine_0/AddBias.bias" in context
    for field in set(FIELDS) - {"grads"}:
        assert field not in context
        with pytest.raises(FieldNotFilled):
            getattr(context, field)


@pytest.mark.parametrize(
    ("typo", "message"),
    [
        ("grad", r"^Context has no field 'grad'\. Did you mean 'grads'\?$"),
        ("losstotal", r"^Context has no field 'losstotal'\. Did you mean 'loss_total'\?$"),
        ("zzz", r"^Context has no field 'zzz'\. There are step, batch, params, .*summary_states\.$"),
    ],
)
def test_a_typo_in_a_field_s_name_is_an_error_wherever_it_is_made(typo, message):
    with pytest.raises(ValueError, match=message):
        build_train_step(zoo.regression_loss, fields=("loss_total", typo))
    with pytest.raises(TypeError, match=message):
        Context(step=0, batch={}, **{typo: 1})
    with pytest.raises(TypeError, match=message):
        small().replace(**{typo: 1})
    with pytest.raises(AttributeError, match=message):
        getattr(small(), typo)


def test_replace_gives_another_context_and_leaves_this_one():
    context = small()
    other = context.replace(loss_total=2.0, params={"w": 1.0})
    assert other.filled == ("step", "batch", "params", "loss_total", "grads")
    assert other.loss_total == 2.0
    assert float(context.loss_total) == 0.5
    assert "params" not in context
    assert other.grads is context.grads


def test_a_context_does_not_change():
    context = small()
    with pytest.raises(AttributeError, match=r"does not change\. Use context\.replace\(loss_total=…\)"):
        context.loss_total = 1.0
    assert float(context.loss_total) == 0.5


def test_a_field_of_a_context_cannot_be_deleted():
    context = small()
    with pytest.raises(AttributeError):
        del context.loss_total
    assert float(context.loss_total) == 0.5


def test_flatten_gives_every_leaf_once_by_its_path():
    context = small()
    flat = context.flatten()
    grads = {f"grads/{path}": grad for path, grad in GRADS.items()}
    assert set(flat) == {"step", "batch/image", "batch/label", "loss_total", *grads}
    assert all(flat[path] is grad for path, grad in grads.items())
    assert flat["batch/label"] is context.batch["label"]


def test_flatten_keeps_the_fields_in_the_order_in_which_a_step_fills_them():
    fields = dict.fromkeys(path.split("/")[0] for path in small().flatten())
    assert list(fields) == ["step", "batch", "loss_total", "grads"]


def test_a_context_goes_through_jax_and_comes_back_equal():
    context = small(aux={"named": pz.nx.ones({"features": 3})})
    leaves, treedef = jax.tree.flatten(context)
    back = jax.tree.unflatten(treedef, leaves)
    assert isinstance(back, Context)
    assert back.filled == context.filled
    assert differing(back, context) == []
    doubled = jax.tree.map(lambda x: x * 2, context)
    assert float(doubled.loss_total) == 1.0
    assert isinstance(doubled.aux["named"], pz.nx.NamedArray)
    paths = [jax.tree_util.keystr(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(context)[0]]
    assert paths[:2] == [".step", ".batch['image']"]


def test_a_context_is_an_argument_and_a_result_of_compiled_functions():
    @jax.jit
    def norms(context: Context) -> tuple[Any, Context]:
        assert "params" not in context
        largest = {path: jnp.abs(grad).max() for path, grad in context["grads/**"].items()}
        return largest, context.replace(loss_total=context.loss_total * 2)

    largest, context = norms(small())
    assert sorted(map(float, largest.values())) == [1.0, 2.0, 3.0, 4.0]
    assert float(context.loss_total) == 1.0
    assert jax.tree.structure(small(aux=1.0)) != jax.tree.structure(small())  # so each is compiled


def test_a_context_can_be_copied():
    context = small()
    assert copy.copy(context).filled == context.filled
    assert differing(copy.deepcopy(context), context) == []


def test_from_state_and_batch_is_what_is_known_before_the_forward_pass():
    case = zoo.running_statistics()
    state = new_state(case)
    before = Context.from_state_and_batch(state=state, batch=case.batch)
    assert before.filled == ("step", "batch", "params", "model_state", "opt_state", "rng")
    _, context = build_train_step(case.loss_fn, fields=before.filled)(state, case.batch)
    assert differing(before, context) == []
    assert differing(before.rng, state.root_rng) != []


def test_get_aux_state_gives_what_is_asked_for_alone():
    context = small(loss_states={"loss": 1.0}, metric_states={"accuracy": (1.0, 2.0)}, summary_states={})
    nothing = context.get_aux_state()
    assert (nothing.loss_states, nothing.metric_states, nothing.summary_states) == (None, None, None)
    metrics = context.get_aux_state(return_metrics=True)
    assert metrics.metric_states == {"accuracy": (1.0, 2.0)}
    assert metrics.loss_states is metrics.summary_states is None
    everything = context.get_aux_state(return_losses=True, return_metrics=True, return_summaries=True)
    assert everything.loss_states == {"loss": 1.0}
    assert everything.summary_states == {}
    assert jax.tree.leaves(everything) == [1.0, 1.0, 2.0]


def test_get_aux_state_does_not_make_up_a_part_that_was_not_filled():
    with pytest.raises(FieldNotFilled, match=r"Context\.metric_states; give the state metrics"):
        small().get_aux_state(return_metrics=True)


def test_the_repr_names_what_is_filled_and_holds_no_value():
    text = repr(small(params={"w": np.zeros((50, 50))}))
    assert text == (
        "Context(step=int32[], batch=<2 leaves>, params=<1 leaves>, loss_total=float32[], grads=<4 leaves>)"
    )
