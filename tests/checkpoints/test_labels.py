from __future__ import annotations

import json
import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.checkpoints import labels
from toolshed.errors import CheckpointError

# --- tags -------------------------------------------------------------------------------------------


def test_tags_keep_their_order_and_come_once():
    assert labels.check_tags(["b", "a", "b"]) == ("b", "a")
    assert labels.check_tags("best") == ("best",)
    assert labels.check_tags(()) == ()
    assert labels.check_tags({"one": 1}.keys()) == ("one",)


@pytest.mark.parametrize(
    "tag", ["best", "..", "../../evil", "/etc/passwd", "<script>", "größer als 5 %", "日本", "a b"]
)
def test_a_tag_is_any_short_text_for_it_is_never_part_of_a_path(tag):
    assert labels.check_tags([tag]) == (tag,)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ([""], "The tag '' has 0 characters; expected 1 to 100 printable ones, with no space around them."),
        (["x" * 300], f"The tag '{'x' * 40}'… has 300 characters; expected 1 to 100"),
        (["a\0b"], r"The tag 'a\x00b' has 3 characters; expected 1 to 100 printable ones"),
        (["\x1b[31mred"], "printable"),
        (["right\u202eleft"], "printable"),
        (["\ud800"], "printable"),
        ([" a"], "no space around"),
        ([5], "Expected a tag as text, got int 5."),
        (5, "Expected tags as a list of words, got int 5."),
        ({"a": 1}, "Expected tags as a list of words, got dict."),
        (b"ab", "Expected tags as a list of words, got bytes."),
        (["latest"], "The tag 'latest' means the checkpoint written last already. Choose another word."),
        (["300"], "The tag '300' means a step already. Choose another word."),
    ],
)
def test_what_is_no_tag_is_told(tags, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        labels.check_tags(tags)


@given(st.text(max_size=120))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_tag_that_json_gives_back_or_an_error(text):
    try:
        (tag,) = labels.check_tags([text])
    except CheckpointError:
        return
    assert tag == text == json.loads(json.dumps(tag))
    assert text.isprintable()


# --- metadata ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
@settings(deadline=None, max_examples=100)
def test_what_json_can_hold_comes_back_the_same(value):
    checked = labels.check_json("metadata", value)
    assert checked == value
    assert json.loads(json.dumps(checked, allow_nan=False)) == value


def test_metadata_is_a_copy_with_plain_numbers():
    value = {"sizes": (np.int64(3), np.float32(0.5)), "on": np.bool_(True), "lr": 1e-3}
    checked = labels.check_dict("metadata", value)
    assert checked == {"sizes": [3, 0.5], "on": True, "lr": 1e-3}
    assert [type(x) for x in (*checked["sizes"], checked["on"])] == [int, float, bool]
    value["lr"] = 5
    assert checked["lr"] == 1e-3
    assert labels.check_dict("metadata", None) == {}


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], "Expected metadata as a dict, got list."),
        ({"a": {"b": math.nan}}, "metadata/a/b is nan, which JSON has no number for. Write it as text."),
        ({"a": [1, -math.inf]}, "metadata/a/1 is -inf"),
        ({"a": jnp.ones(3)}, "metadata/a is float32[3]; expected text, numbers, and lists and dicts"),
        ({"a": object()}, "metadata/a is object; expected text"),
        ({1: "a"}, "metadata has the key 1; expected text."),
        ({"a": {2.5: 1}}, "metadata/a has the key 2.5; expected text."),
        ({"a": "\ud800"}, r"metadata/a is '\ud800', which is no valid Unicode text."),
        ({"\ud800": 1}, "A key of metadata is"),
        ({"a": 2**65}, "metadata/a is a number of more than 64 bits. Write it as text."),
        ({"a": deep(40)}, "is nested more than 32 deep."),
        ({"a": "x" * 16_000_001}, "metadata takes 16,000,010 characters as JSON; at most 16,000,000"),
    ],
)  # fmt: skip
def test_what_json_cannot_hold_is_told_with_its_place(value, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        labels.check_dict("metadata", value)


def test_a_cycle_is_no_endless_loop():
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(CheckpointError, match="nested more than 32 deep"):
        labels.check_dict("metadata", value)


# --- metrics ----------------------------------------------------------------------------------------


def test_metrics_are_fetched_late_and_are_floats_then():
    given = {"eval/loss": jnp.float32(0.5), "n": 3, "x": np.float64(0.25), "bad": float("nan")}
    checked = labels.check_metrics(given)
    assert checked["eval/loss"] is given["eval/loss"]
    found = labels.numbers(checked)
    assert {type(value) for value in found.values()} == {float}
    assert (found["eval/loss"], found["n"], found["x"]) == (0.5, 3.0, 0.25)
    assert math.isnan(found["bad"])
    assert labels.check_metrics(None) == {}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([1], "Expected metrics as a dict of numbers, got list."),
        ({"c": jnp.zeros((3, 3))}, "The metric 'c' is float32[3,3]; expected a number. Leave it out, or"),
        ({"c": "high"}, "The metric 'c' is str; expected a number."),
        ({"c": np.array("high")}, "The metric 'c' is <U4[]; expected a number."),
        ({"c": 1j}, "The metric 'c' is complex 1j; expected a number."),
        ({"c": jnp.complex64(1j)}, "The metric 'c' is complex64[]; expected a number."),
        ({"": 1.0}, "The metric '' has 0 characters"),
        ({3: 1.0}, "Expected a metric as text, got int 3."),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_told(metrics, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        labels.check_metrics(metrics)
