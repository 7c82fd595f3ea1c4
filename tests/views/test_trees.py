from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import treescope
from penzai import pz

import toolshed
from tests import zoo
from toolshed import Context, TrainState, metrics, models
from toolshed.training.context import FIELDS
from toolshed.views import format_bytes, summarize_state, trees


def state_of(name: str, optimizer: Any = None, **fields: Any) -> TrainState:
    """The initial state of a model of the zoo."""
    return TrainState.initial_state(
        zoo.ZOO[name]().model, optimizer or optax.adam(0.5), jax.random.key(1), **fields
    )


def small_state(**fields: Any) -> TrainState:
    """A state put together from parts, without a model."""
    parts = {
        "params": {"w": jnp.ones(3), "b": jnp.ones(())},
        "model_without_params": (),
        "optimizer_def": optax.sgd(0.5),
        "root_rng": jax.random.key(1),
    }
    return TrainState.create(**(parts | fields))


def opened(value: Any, depth: int = 2) -> str:
    """The text of a value with its nodes opened down to a depth; folded at depth 0."""
    strategy = lambda tree: treescope.layout_algorithms.expand_to_depth(tree, depth)  # noqa: E731
    with treescope.active_expansion_strategy.set_scoped(strategy):
        return treescope.render_to_text(value)


def html_of(value: Any) -> str:
    return treescope.render_to_html(value, compressed=False)


# --- the line on a state ----------------------------------------------------------------------------


def test_a_state_s_line_says_step_size_and_optimiser():
    # 4·8 + 8 + 8·1 + 1 = 49 parameters of 4 bytes
    assert summarize_state(state_of("mlp")) == "step 0 · 49 parameters, 196 B · scale_by_adam → scale"
    # the same 49, frozen, beside adapters of rank 2: 4·2 + 2·8 + 8·2 + 2·1 = 42
    assert summarize_state(state_of("lora_by_metadata", optax.sgd(0.5, momentum=0.9))) == (
        "step 0 · 42 parameters, 168 B · trace → scale"
    )


def test_a_state_s_line_counts_bytes_by_type_and_writes_large_numbers_in_groups():
    params = {"w": jnp.zeros((1000, 12), jnp.bfloat16), "b": jnp.zeros(345, jnp.float32)}
    state = small_state(params=params, step=1234567)
    # 12,000·2 + 345·4 = 25,380 bytes
    assert summarize_state(state) == "step 1,234,567 · 12,345 parameters, 25.4 kB · identity → scale"
    assert summarize_state(small_state(params={"w": jnp.zeros(())})) == (
        "step 0 · 1 parameter, 4 B · identity → scale"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (18_640, "18.6 kB"),
        (999_949, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (14_000_000_000, "14.0 GB"),
        (2_500_000_000_000, "2.5 TB"),
    ],
)
def test_bytes_are_written_in_the_largest_unit_that_leaves_at_least_one(number, words):
    assert format_bytes(number) == words


@pytest.mark.parametrize("number", [999_950, 999_999, 999_999_999])
def test_bytes_are_never_written_as_a_thousand_of_a_unit(number):
    assert not format_bytes(number).startswith("1000.0")


def test_count_and_bytes_reads_no_array():
    gone = jnp.ones(3)
    gone.delete()
    assert trees.count_and_bytes({"a": gone, "b": np.zeros((2, 2), np.int8), "c": 3}) == (7, 16)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(gone)  # the control: reading it would not have worked


def test_shapes_in_the_place_of_arrays_are_counted_too():
    shapes = jax.eval_shape(lambda: state_of("mlp", optax.sgd(0.5)))
    assert summarize_state(shapes).endswith("· 49 parameters, 196 B · identity → scale")
    assert "49 parameters" in opened(shapes)


def test_a_stack_of_states_has_a_line_too():
    state = small_state()
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    assert summarize_state(two) == "step [0 0] · 8 parameters, 32 B · identity → scale"


# --- a state in treescope ---------------------------------------------------------------------------


def test_a_folded_state_is_its_line():
    state = state_of("mlp")
    assert treescope.render_to_text(state) == f"TrainState({summarize_state(state)})"
    assert opened(state, depth=0) == f"TrainState({summarize_state(state)})"
    assert repr(state) == f"TrainState({summarize_state(state)})"


def test_an_opened_state_shows_its_line_and_its_fields_in_order():
    state = state_of("running_statistics", metrics=metrics.collection(m=metrics.Mean("preds")))
    lines = opened(state, depth=1).splitlines()
    assert lines[0] == f"TrainState( # {summarize_state(state)}"
    assert [line.split("=")[0].strip() for line in lines[1:-1]] == list(state.attributes_dict())
    assert lines[-1] == ")"
    assert "root_rng=<key threefry2x32 0 1>" in opened(state)
    adam = "scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0, mu_dtype=None, nesterov=False)"
    assert f"optimizer_def={adam} → scale(step_size=-0.5)" in opened(state)


def shown_params(text: str) -> list[str]:
    """The keys of the field params in the text of an opened state, as they are shown."""
    inside = text.split("params={\n")[1].split("\n  }")[0]
    return re.findall(r"^    '(.+?)':", inside, re.MULTILINE)


@pytest.mark.parametrize("name", ["mlp", "shared_parameter", "transformer_stacked"])
def test_parameters_are_shown_in_the_model_s_order_also_after_a_step(name):
    case = zoo.ZOO[name]()
    order = list(models.split(case.model).params)
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    assert shown_params(opened(state)) == order
    through_jit = state.apply_gradients(state.params)
    assert list(through_jit.params) == sorted(order) != order  # what jax does to the order of a dict
    assert shown_params(opened(through_jit)) == order


def test_the_parameters_of_a_v1_model_are_shown_in_its_order_after_a_step():
    state = state_of("v1_mlp", optax.sgd(0.5))
    assert shown_params(opened(state.apply_gradients(state.params))) == list(state.params)


def test_parameters_of_several_arrays_are_shown_in_the_model_s_order_after_a_step():
    model = [
        pz.Parameter(value={"x": jnp.ones(1), "y": jnp.ones(1)}, label="z"),
        pz.Parameter(value=jnp.ones(1), label="a"),
    ]
    state = TrainState.initial_state(model, optax.sgd(0.5), jax.random.key(1))
    assert list(state.params) == ["z/x", "z/y", "a"]
    assert shown_params(opened(state.apply_gradients(state.params))) == ["z/x", "z/y", "a"]


def test_keys_in_order_are_those_named_and_then_the_others():
    assert list(trees.in_order({"c": 1, "a": 2, "b": 3}, ["b", "gone", "c"])) == ["b", "c", "a"]
    assert trees.in_order([1, 2], ["a"]) == [1, 2]


def test_the_skeleton_shows_a_slot_with_key_and_shape_for_each_variable():
    text = opened(state_of("running_statistics"), depth=9)
    assert "weights=ParameterSlot 'mlp/Affine_0/Linear.weights' float32[features:4,features_out:8]," in text
    assert "bias=ParameterSlot 'mlp/Affine_1/AddBias.bias' float32[features:1]," in text
    assert "mean=StateVariableSlot 'sublayers/0/mean' float32[features:4]," in text
    assert "variance=StateVariableSlot 'sublayers/0/variance' float32[features:4]," in text
    assert "name='Affine_0.Linear.weights'" in opened(state_of("v1_mlp"), depth=9)
    assert "value=ValueSlot float32[features:4,features_out:8]," in opened(state_of("v1_mlp"), depth=9)


def test_drawing_leaves_the_state_as_it_was():
    state = state_of("running_statistics")
    before = [(id(leaf), str(leaf)) for leaf in jax.tree.leaves(state)]
    opened(state, depth=9)
    html_of(state)
    assert [(id(leaf), str(leaf)) for leaf in jax.tree.leaves(state)] == before
    assert list(state.params) == list(models.split(zoo.running_statistics().model).params)


def test_large_arrays_are_named_but_not_copied():
    # A repr of the values would fetch them. treescope summarises arrays; 4 MB of text would show.
    state = small_state(params={"w": jnp.arange(1_000_000, dtype=jnp.float32)})
    for text in (opened(state, depth=9), html_of(state)):
        assert "float32(1000000,)" in text
        assert len(text) < 100_000


def test_a_donated_state_is_still_drawn():
    case = zoo.running_statistics()
    state = TrainState.initial_state(
        case.model, optax.adam(0.5), jax.random.key(1), metrics=metrics.collection(m=metrics.Mean("preds"))
    )
    toolshed.build_train_step(case.loss_fn, donate=True)(state, case.batch)
    assert state.params["mlp/Affine_0/AddBias.bias"].is_deleted()
    line = "step deleted · 49 parameters, 196 B · scale_by_adam → scale"
    assert summarize_state(state) == line
    text = opened(state, depth=9)
    assert text.startswith(f"TrainState( # {line}\n")
    assert "'mlp/Affine_0/AddBias.bias': <jax.Array float32(8,) - deleted!>" in text
    assert "deleted!" in html_of(state)


def test_a_state_whose_every_array_was_deleted_is_still_drawn():
    state = state_of("lora_by_metadata")
    text = opened(state)
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    gone = opened(state, depth=20)
    assert gone.startswith("TrainState( # step deleted · 42 parameters, 168 B · scale_by_adam → scale\n")
    assert gone.count("deleted!") == len(jax.tree.leaves(state))
    assert "deleted" not in text
    html_of(state)


def test_a_state_is_drawn_while_jax_traces():
    drawn = []

    def draw(state: TrainState) -> TrainState:
        drawn.append(opened(state))
        html_of(state)
        return state

    jax.jit(draw)(state_of("mlp"))
    assert "49 parameters, 196 B" in drawn[0]


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3, impl="rbg")])
def test_keys_of_other_kinds_are_drawn(key):
    text = opened(small_state(root_rng=key))
    expected = "<key rbg 0 3 0 3>" if key.ndim == 0 else "<jax.Array([0, 3], dtype=uint32)>"
    assert f"root_rng={expected}," in text


def test_a_state_with_fields_of_other_kinds_is_drawn():
    # Trees of the same structure arise from jax.tree.map: shapes, paths, booleans.
    for value in (None, (2, 3), "text", True):
        text = opened(jax.tree.map(lambda leaf, value=value: value, state_of("mlp")))
        assert text.startswith("TrainState( # step ")
        assert "0 parameters" in text


# --- a Context in treescope -------------------------------------------------------------------------


def test_a_context_says_its_step_and_shows_the_fields_that_are_filled():
    case = zoo.mlp()
    _, context = toolshed.build_train_step(case.loss_fn)(state_of("mlp"), case.batch)
    # 3 of the 15 are not filled: the model captures no intermediates, the state has no metrics, …
    assert {"interms", "metric_states", "summary_states"} == set(FIELDS) - set(context.filled)
    summary = "what step 0 knew · 12 of 15 fields"
    assert opened(context, depth=0) == f"Context({summary})"
    lines = opened(context, depth=1).splitlines()
    assert lines[0] == f"Context( # {summary}"
    named = [line.split("=")[0].strip() for line in lines[1:-1] if "=" in line and line.startswith("  ")]
    assert [name for name in named if name in context.filled] == list(context.filled)
    assert "'x': <jax.Array float32(8, 4)" in opened(context)
    assert "metric_states" not in opened(context)


def test_a_context_of_little_is_drawn():
    context = Context(step=jnp.int32(1234), batch={"x": jnp.ones(2)})
    assert opened(context, depth=0) == "Context(what step 1,234 knew · 2 of 15 fields)"
    assert "x" in html_of(context)


# --- text that others wrote -------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)' x='",
    "</template><svg onload=alert(1)>",
    "-->]]><iframe srcdoc=alert(1)>",
]


class Elements(HTMLParser):
    """The elements and event handlers of a page that hold a word, as a browser would find them."""

    def __init__(self, html: str, word: str):
        super().__init__()
        self._word, self._script, self.found, self.texts = word, False, [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag in ("script", "style")
        live = ("on", "src", "href")
        self.found += [
            (tag, name) for name, value in attrs if name.startswith(live) and self._word in (value or "")
        ]
        self.found += [(tag, name) for name, _ in attrs if self._word in name]
        self.found += [(tag, "")] if tag in ("img", "svg", "iframe") else []

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if self._word in data:
            (self.found if self._script else self.texts).append(("script", data[:200]))


@pytest.mark.parametrize("text", HOSTILE)
def test_the_check_for_live_elements_finds_them(text):
    if text.startswith("'"):
        page = f"<p title='{text}'>"
    else:
        page = f'<p title="{text}"><script>var x = "{text}";</script>{text}'
    assert Elements(page, "alert(1)").found


def hostile_values(text: str) -> dict[str, Any]:
    """Each kind of value that toolshed draws, with the text wherever text may stand."""
    metadata = {text: text}
    model = pz.nn.Sequential(
        [
            zoo.Scale(pz.Parameter(value=pz.nx.ones({"features": 4}), label=text, metadata=metadata)),
            zoo.Scale(
                pz.Parameter(
                    value=pz.nx.ones({"features": 4}),
                    label=f"frozen {text}",
                    metadata=metadata | {"trainable": False},
                )
            ),
            zoo.WithStream(
                zoo.mlp().model,
                pz.RandomStream(
                    jax.random.key(0),
                    pz.StateVariable(
                        value=jnp.zeros((), jnp.int32), label=f"state {text}", metadata=metadata
                    ),
                ),
            ),
        ]
    )

    def loss_fn(*, model: Any, state: Any, rng: jax.Array, **batch: Any) -> Any:
        loss, _, aux = zoo.regression_loss(
            model=model.sublayers[0], state=None, rng=rng, x=batch["x"], y=batch["x"]
        )
        return loss, state, {text: aux["preds"], "nested": {text: loss}}

    def evil(rate: float) -> optax.GradientTransformation:
        def apply(updates: Any, state: Any, params: Any = None) -> Any:
            return jax.tree.map(lambda update: -rate * len(text) * update, updates), state

        apply.__qualname__ = text
        return optax.GradientTransformation(lambda params: {text: jnp.zeros(1)}, apply)

    state = TrainState.initial_state(model, evil(0.1), jax.random.key(1), loss_fn_state={text: jnp.zeros(2)})
    after, context = toolshed.build_train_step(loss_fn)(state, {"x": zoo.regression_batch()["x"]})
    return {
        "state": state,
        "state after a step": after,
        "context": context,
        "skeleton": state.model_without_params,
        "slot": state.model_without_params.sublayers[0].factor,
        "slot of an axis": models.split([pz.Parameter(value=pz.nx.ones({text: 4}), label="w")]).skeleton,
        "gradients": context.grads,
        "a state whose step is text": state.replace(step=text),
    }


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_others_appears_only_escaped(text):
    for name, value in hostile_values(text).items():
        page = Elements(html_of(value), "alert(1)")
        assert page.found == [], name
        assert "".join(data for _, data in page.texts) or name in ("slot", "a state whose step is text"), name


def test_text_of_others_is_shown_as_it_is_written():
    # The control: the text does reach the page, as text.
    values = hostile_values("<b>bold & 'quoted'")
    for name in ("state", "context", "skeleton"):
        assert "<b>bold & 'quoted'" in opened(values[name], depth=9).replace("\\'", "'")
        assert "&lt;b&gt;bold" in html_of(values[name])
        assert "<b>bold" not in Elements(html_of(values[name]), "<b>").found
