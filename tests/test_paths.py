from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from tests import zoo
from toolshed import paths
from toolshed.errors import ContextKeyError, ToolshedError


class Pair(NamedTuple):
    first: Any
    second: Any


@pz.pytree_dataclass
class Box(pz.Struct):
    inside: Any


# --- flatten, children, lookup ----------------------------------------------------------------------


def test_a_path_is_the_keys_from_the_root_joined_by_slashes():
    tree = {"a": [1, (2, 3)], "b": Pair(4, Box(5))}
    assert paths.flatten(tree) == {"a/0": 1, "a/1/0": 2, "a/1/1": 3, "b/first": 4, "b/second/inside": 5}


def test_slashes_and_dots_inside_a_key_are_kept():
    tree = {"params": {"mlp/Affine_0/Linear.weights": 1}, "optimizer.state": 2}
    assert paths.flatten(tree) == {"params/mlp/Affine_0/Linear.weights": 1, "optimizer.state": 2}
    assert paths.lookup(tree, "params/mlp/Affine_0/Linear.weights") == 1
    with pytest.raises(KeyError):
        paths.lookup(tree, "params/mlp/Affine_0/Linear/weights")


def test_a_named_array_is_one_leaf_and_an_array_has_no_children():
    named = pz.nx.zeros({"batch": 2, "features": 3})
    assert list(paths.flatten({"x": named})) == ["x"]
    assert paths.flatten({"x": named})["x"] is named
    assert paths.children(named) == paths.children(jnp.zeros(3)) == paths.children(7) == {}
    # Control: to jax itself the named array is a node with a leaf inside.
    assert len(jax.tree_util.tree_flatten_with_path({"x": named})[0][0][0]) > 1


def test_children_are_direct_and_by_key():
    assert paths.children({"a": {"b": 1}, 3: 2}) == {"a": {"b": 1}, "3": 2}
    assert paths.children([5, [6]]) == {"0": 5, "1": [6]}
    assert paths.children(Pair(1, (2,))) == {"first": 1, "second": (2,)}
    assert paths.children(()) == paths.children({}) == {}


def test_two_leaves_with_one_path_are_an_error_that_names_it():
    assert paths.flatten({"a/b": 1, "a": {"c": 2}}) == {"a/c": 2, "a/b": 1}
    with pytest.raises(ToolshedError, match=r"^Two leaves have the path 'a/b'\. Rename one of their keys\.$"):
        paths.flatten({"a/b": 1, "a": {"b": 2}})


def test_lookup_gives_subtrees_too():
    tree = {"a": {"b": {"c": 1}}, "a/b": {"d": 2}}
    assert paths.lookup(tree, "a/b/c") == 1
    assert paths.lookup(tree, "a/b/d") == 2  # a longer key is tried when the shorter one leads nowhere
    assert paths.lookup(tree, "a") == {"b": {"c": 1}}


@pytest.mark.parametrize("path", ["b", "a/", "a/b/c/d", "/a", ""])
def test_lookup_of_what_is_not_there_is_a_key_error(path):
    with pytest.raises(KeyError, match=re.escape(repr(path))):
        paths.lookup({"a": {"b": {"c": 1}}}, path)


def test_a_leaf_is_found_where_a_subtree_of_the_same_path_comes_first():
    # flatten lists the leaf 'a/b' (2) beside 'a/b/c' (1), so lookup must give that leaf.
    shorter, longer = ("a", {"b": {"c": 1}}), ("a/b", 2)
    for tree in (OrderedDict([longer, shorter]), OrderedDict([shorter, longer])):
        assert paths.flatten(tree)["a/b"] == 2
        assert paths.lookup(tree, "a/b") == 2


def nodes(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["", "/", "a", "b", "a/", "/a", "a/b", "b/a", "a/b/a", "a.b", "0", "first"])
    return st.one_of(
        st.dictionaries(keys, inner, max_size=4),
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Pair, inner, inner),
        st.builds(Box, inner),
    )


def overlapping(depth: int) -> st.SearchStrategy[Any]:
    """Dicts whose paths often begin alike."""
    inner = st.just(0) if depth == 1 else st.just(0) | overlapping(depth - 1)
    return st.dictionaries(st.sampled_from(["a", "b", "a/b"]), inner, min_size=1)


@given(tree=nodes(st.recursive(st.just(0), nodes, max_leaves=12)) | overlapping(depth=3))
@settings(max_examples=250, deadline=None)
def test_each_path_that_flatten_gives_leads_back_to_its_leaf(tree):
    structure = jax.tree.structure(tree)
    tree = structure.unflatten(range(structure.num_leaves))  # all leaves different
    try:
        flat = paths.flatten(tree)
    except ToolshedError:
        return  # two leaves of one path: an example of its own
    assert list(flat.values()) == list(range(structure.num_leaves))
    for path, leaf in flat.items():
        assert paths.lookup(tree, path) == leaf


def test_paths_of_a_penzai_model_lead_back_to_its_variables():
    model = zoo.mlp().model
    flat = paths.flatten(model)
    assert flat
    for path, leaf in flat.items():
        assert paths.lookup(model, path) is leaf


# --- globs ------------------------------------------------------------------------------------------


def slow_match(pattern: str, path: str) -> bool:
    """The glob's definition, segment by segment: the reference for the regular expression."""

    def segment_matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "*":
            return any(segment_matches(pattern[1:], text[i:]) for i in range(len(text) + 1))
        return bool(text) and text[0] == pattern[0] and segment_matches(pattern[1:], text[1:])

    def matches(patterns: list[str], segments: list[str]) -> bool:
        if not patterns:
            return not segments
        if patterns[0] == "**":
            return any(matches(patterns[1:], segments[i:]) for i in range(len(segments) + 1))
        return (
            bool(segments)
            and segment_matches(patterns[0], segments[0])
            and matches(patterns[1:], segments[1:])
        )

    return matches(re.split("[/.]", pattern), re.split("[/.]", path))


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("grads/*/w", ["grads/a/w", "grads/b.w", "grads//w"], ["grads/w", "grads/a/b/w", "grads/a/wx"]),
        ("grads/**/w", ["grads/w", "grads/a/w", "grads/a/b.w"], ["grads/aw", "w", "grads/a/w/x"]),
        ("**/w", ["w", "a/w", "a/b.w"], ["aw", "w/a"]),
        ("**.bias", ["bias", "mlp/Affine_0/AddBias.bias"], ["mlp/bias_0"]),
        ("grads/**", ["grads", "grads/a", "grads/a/b"], ["gradsx", "x/grads"]),
        ("**", ["", "a", "a/b.c"], []),
        ("*", ["", "a", "abc"], ["a/b", "a.b"]),
        ("Affine_*", ["Affine_0", "Affine_"], ["Affine", "Affine_0/w"]),
        ("a+b", ["a+b"], ["aab"]),  # what means something to a regular expression means nothing here
        ("[ab]", ["[ab]"], ["a"]),
    ],
)
def test_globs_by_example(pattern, matching, other):
    assert paths.match(pattern, [*matching, *other]) == matching
    for path in [*matching, *other]:
        assert slow_match(pattern, path) == (path in matching)


segments = st.one_of(st.just("**"), st.text(alphabet="ab*+", max_size=3).filter(lambda s: "**" not in s))


def joined(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(parts, st.sampled_from("/.")), min_size=1, max_size=4)
    return pairs.map(lambda found: "".join(part + separator for part, separator in found)[:-1])


@given(pattern=joined(segments), found=st.lists(joined(st.text(alphabet="ab+\n", max_size=3)), max_size=8))
@settings(max_examples=250, deadline=None)
def test_globs_agree_with_their_slow_definition(pattern, found):
    assert paths.match(pattern, found) == [path for path in found if slow_match(pattern, path)]


@given(parts=st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=5), data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_path_still_matches_when_segments_are_starred(parts, data):
    choices = [data.draw(st.sampled_from([part, "*", part[0] + "*", "**"])) for part in parts]
    assert paths.match("/".join(choices), ["/".join(parts)]) == ["/".join(parts)]


def test_matches_come_in_the_order_of_the_paths():
    assert paths.match("*", ["c", "a", "x/y", "b"]) == ["c", "a", "b"]


def test_a_pattern_has_a_star():
    assert paths.is_pattern("a/*/b")
    assert not paths.is_pattern("a/b.c[0]?")


# --- messages ---------------------------------------------------------------------------------------


def test_the_error_for_a_missing_path_names_the_nearest_ones():
    error = paths.missing("grads/mpl/weights", ["grads/mlp/weights", "batch/label"], "this Context")
    assert isinstance(error, ContextKeyError)
    assert isinstance(error, KeyError)
    assert str(error) == "No 'grads/mpl/weights' in this Context. Did you mean 'grads/mlp/weights'?"


def test_the_error_for_a_path_like_no_other_names_the_first_eight_there_are():
    known = [f"{letter}" * 3 for letter in "abcdefghij"]
    assert str(paths.missing("zz", known, "it")) == (
        "No 'zz' in it. There is aaa, bbb, ccc, ddd, eee, fff, ggg, hhh, …."
    )
    assert str(paths.missing("zz", known[:2], "it")) == "No 'zz' in it. There is aaa, bbb."
    assert str(paths.missing("zz", [], "it")) == "No 'zz' in it."


def test_the_nearest_paths_come_best_first_and_none_if_none_is_near():
    assert paths.nearest("weigths", ["weights", "weight", "bias"], n=2) == ["weights", "weight"]
    assert paths.nearest("weights", ["zzz"]) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.zeros((8, 32), np.float32), "float32[8,32]"),
        (np.float64(1), "float64[]"),
        (True, "bool True"),
        (3, "int 3"),
        (0.5, "float 0.5"),
        (1j, "complex 1j"),
        ("text", "str"),
        (None, "NoneType"),
    ],
)
def test_a_leaf_is_described_in_one_word(value, words):
    assert paths.describe(value) == words


def test_arrays_of_jax_are_described_with_their_dtype_and_axes():
    assert paths.describe(jnp.zeros((2, 0), jnp.bfloat16)) == "bfloat16[2,0]"
    assert paths.describe(jax.ShapeDtypeStruct((4,), jnp.int8)) == "int8[4]"
    assert paths.describe(jax.random.key(0)) == "key<fry>[]"
    assert paths.describe(pz.nx.wrap(jnp.zeros((5, 2, 3))).tag_prefix("a", "b")) == "float32[3,a:5,b:2]"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (jax.tree_util.DictKey(3), "3"),
        (jax.tree_util.GetAttrKey("weights"), "weights"),
        (jax.tree_util.SequenceKey(2), "2"),
        (jax.tree_util.FlattenedIndexKey(4), "4"),
        ("plain", "plain"),
    ],
)
def test_a_tree_key_becomes_its_plain_text(key, words):
    assert paths.key_string(key) == words
    assert paths.path_string([key, key]) == f"{words}/{words}"
