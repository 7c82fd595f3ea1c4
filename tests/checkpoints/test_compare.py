from __future__ import annotations

import re
from typing import Any

import jax
import pytest

from toolshed.checkpoints import compare as comparing
from toolshed.checkpoints.compare import Comparison, advise, compare, rename
from toolshed.checkpoints.structure import Kind
from toolshed.errors import CheckpointError


def kinds(**sizes: Any) -> dict[str, Kind]:
    """Kinds by path: of a size (float32), or of a dtype and a size."""
    found = {}
    for path, given in sizes.items():
        dtype, *shape = given if isinstance(given, tuple) else ("float32", given)
        found[path.replace("__", "/")] = Kind(dtype, tuple(shape))
    return found


def saved_and_expected(saved: dict[str, Kind], expected: dict[str, Kind]) -> Comparison:
    return compare(saved, expected, names=("saved", "expected"))


def test_every_leaf_is_in_exactly_one_group():
    first = kinds(params__a=1, params__b=2, params__c=3, params__d=4)
    second = kinds(params__a=1, params__b=20, params__d=4, params__e=5)
    found = compare(first, second, changed=lambda path: path == "params/d")
    assert found.same == ("params/a",)
    assert found.changed == ("params/d",)
    assert found.different == (("params/b", Kind("float32", (2,)), Kind("float32", (20,))),)
    assert found.only_first == (("params/c", Kind("float32", (3,))),)
    assert found.only_second == (("params/e", Kind("float32", (5,))),)
    assert not found.fits
    assert found.differing == ["params/b", "params/c", "params/e"]
    assert compare(first, first).fits
    assert compare(first, first).lines() == []


def test_the_differences_in_words_with_the_optimiser_s_beside_their_parameter():
    saved = kinds(
        params__w=2, opt_state__0__mu__w=2, opt_state__0__nu__w=2, params__old=5, opt_state__0__mu__old=5,
        opt_state__0__count=("int32",),
    )  # fmt: skip
    expected = kinds(params__w=3, opt_state__0__mu__w=3, opt_state__0__nu__w=3)
    assert repr(saved_and_expected(saved, expected)).splitlines() == [
        "Comparison of saved and expected: 0 leaves are the same",
        "  other in dtype or shape (3):",
        "    params/w: saved float32[2], expected float32[3] (and 2 of the optimiser)",
        "  only saved (3):",
        "    params/old: float32[5] (and 1 of the optimiser)",
        "    opt_state/0/count: int32[]",
    ]


def test_however_many_differ_a_text_is_bounded():
    saved = {f"params/layer_{i}/w": Kind("float32", (i,)) for i in range(5_000)}
    lines = saved_and_expected(saved, {}).lines()
    assert len(lines) == 1 + 8 + 1
    assert lines[0] == "only saved (5000):"
    assert lines[-1] == "  and 4992 more"
    assert saved_and_expected({path: saved[path] for path in list(saved)[:8]}, {}).lines()[-1].endswith("[7]")


# --- renaming ---------------------------------------------------------------------------------------

PATHS = ["step", "params/enc/0.w", "params/encoder/w", "opt_state/0/mu/enc/0.w", "frozen/x"]


def test_without_a_rule_all_keep_their_names():
    assert rename(PATHS, None) == {path: path for path in PATHS}


def test_a_dict_renames_whole_parts_of_paths_wherever_they_stand():
    assert rename(PATHS, {"enc": "backbone"}) == {
        "step": "step",
        "params/backbone/0.w": "params/enc/0.w",
        "params/encoder/w": "params/encoder/w",  # another word
        "opt_state/0/mu/backbone/0.w": "opt_state/0/mu/enc/0.w",
        "frozen/x": "frozen/x",
    }
    assert "params/enc/1.w" in rename(PATHS, {"enc/0": "enc/1"})
    assert "params/enc/0.weights" in rename(PATHS, {"w": "weights"})


def test_the_longer_part_counts():
    found = rename(PATHS, {"enc": "a", "enc/0.w": "b"})
    assert "params/b" in found
    assert "params/a/0.w" not in found


def test_two_parts_may_change_places():
    swapped = rename(["a/one", "a/two"], {"one": "two", "two": "one"})
    assert swapped == {"a/two": "a/one", "a/one": "a/two"}


def test_none_drops():
    assert set(rename(PATHS, {"enc": None})) == {"step", "params/encoder/w", "frozen/x"}
    assert set(rename(PATHS, lambda path: None if "enc" in path else path)) == {"step", "frozen/x"}


def test_a_function_may_do_anything():
    assert rename(["a"], str.upper) == {"A": "a"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"encode": "x"},
            "rename has 'encode', which is in no saved path. The nearest is 'params/enc",
        ),
        ({"qq": "x"}, "rename has 'qq', which is in no saved path."),
        (lambda path: "same", "rename makes both 'step' and 'params/enc/0.w' into 'same'."),
        (lambda path: 5, "rename gave int 5 for 'step'; expected a path or None."),
        (5, "rename is int 5; expected a dict of paths, or a function."),
        ({"": "x"}, "rename is dict; expected a dict of paths, or a function."),
        ({5: "x"}, "rename is dict; expected a dict of paths, or a function."),
    ],
)
def test_a_rule_that_cannot_be_followed_is_told(rule, message):
    with pytest.raises(CheckpointError, match=re.escape(message)):
        rename(PATHS, rule)


# --- advice -----------------------------------------------------------------------------------------

SAME = ("adam", "adam")


def advice(saved: dict[str, Kind], expected: dict[str, Kind], optimizers: tuple[str, str] = SAME) -> str:
    return advise(saved_and_expected(saved, expected), optimizers)


def test_another_optimiser():
    saved, expected = kinds(params__w=1, opt_state__0__mu__w=1), kinds(params__w=1, opt_state__0__trace__w=1)
    text = advice(saved, expected, ("scale_by_adam()", "trace()"))
    assert text == (
        "It was saved with the optimizer scale_by_adam(); this state has trace(). Give the state the same"
        " optimizer, or pass partial=True to begin with a fresh one."
    )
    assert advice(saved, expected).startswith("Give the state the same optimizer")


def test_another_precision():
    assert advice(kinds(a=("float32", 2)), kinds(a=("bfloat16", 2))) == (
        "It was saved in another precision: pass cast=True to convert it."
    )
    wide, narrow = kinds(a=("float64", 2), b=("int64",)), kinds(a=("float32", 2), b=("int32",))
    assert "jax_enable_x64, which is off here" in advice(wide, narrow)
    assert "another precision" in advice(narrow, wide)
    with jax.enable_x64(True):
        assert "another precision" in advice(wide, narrow)


def test_another_kind_of_key():
    saved, expected = kinds(root_rng=("key<rbg>",)), kinds(root_rng=("key<threefry2x32>",))
    assert "jax.random.key(seed, impl='rbg')" in advice(saved, expected)


def test_other_metrics_or_loss_state():
    assert advice(kinds(metrics__a=1), kinds(metrics__b=1)).startswith("Only metrics differs: build `like`")
    both = advice(kinds(metrics__a=1), kinds(loss_fn_state__b=1))
    assert both.startswith("Only loss_fn_state and metrics differ: build `like`")


def test_other_names_are_told_with_the_rename_that_helps():
    saved = kinds(
        params__mlp__0__w=3, params__mlp__1__w=5, opt_state__mu__mlp__0__w=3, opt_state__mu__mlp__1__w=5
    )
    expected = kinds(
        params__net__0__w=3, params__net__1__w=5, opt_state__mu__net__0__w=3, opt_state__mu__net__1__w=5
    )
    assert advice(saved, expected).endswith("Pass rename={'mlp': 'net'}.")
    shuffled = kinds(params__x=5, params__y=3)
    assert advice(kinds(params__a=3, params__b=5), shuffled).endswith("rename={'old part': 'new part'}.")
    assert "rename" not in advice(saved, shuffled | kinds(params__z=9))


def test_other_frozen_parameters():
    assert "other parameters are frozen" in advice(kinds(params__w=3), kinds(frozen__x=3, params__v=9))


def test_other_sizes():
    text = advice(kinds(params__w=3), kinds(params__w=4))
    assert text.startswith("The model was probably built with other sizes or layers.")
    assert "partial=True" in text


def test_advice_names_only_options_that_there_are():
    import inspect

    from toolshed.checkpoints import Repository

    options = inspect.signature(Repository.load).parameters
    named = set(re.findall(r"pass (\w+)=", inspect.getsource(comparing), re.I))
    assert named == {"partial", "cast", "rename"}
    assert named <= set(options)
