from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints.test_manifest import small
from toolshed.checkpoints.manifest import Manifest
from toolshed.checkpoints.retention import Best, Retention, check_rules, ranked
from toolshed.errors import CheckpointError


def saved(*checkpoints: Any) -> list[Manifest]:
    """Manifests in the order of writing, each of a step or of a step, a loss and tags."""
    found = []
    for generation, one in enumerate(checkpoints, 1):
        step, *rest = one if isinstance(one, tuple) else (one,)
        losses = [value for value in rest if isinstance(value, float)]
        tags = tuple(value for value in rest if isinstance(value, str))
        metrics = {"loss": losses[0]} if losses else {}
        found.append(small(step=step, generation=generation, metrics=metrics, tags=tags))
    return found


def kept(rules: Retention, manifests: list[Manifest]) -> list[int]:
    """The steps that stay after the last one was written."""
    gone = {manifest.generation for manifest in rules.discarded(manifests, manifests[-1])}
    return [manifest.step for manifest in manifests if manifest.generation not in gone]


@pytest.mark.parametrize(
    ("rules", "checkpoints", "expected"),
    [
        ({}, [1, 2, 3], [1, 2, 3]),
        ({"keep_last": 2}, [1, 2, 3], [2, 3]),
        ({"keep_last": 9}, [1, 2, 3], [1, 2, 3]),
        ({"keep_last": 2}, [500, 600, 700, 200], [700, 200]),  # a rewind: last is what was written last
        ({"keep_last": 1}, [500, 600, 700, 200], [200]),
        ({"keep_every": 100}, [50, 100, 150, 200, 250], [100, 200, 250]),  # the last was just written
        ({"keep_last": 1, "keep_every": 100}, [0, 50, 100, 150], [0, 100, 150]),
        ({"keep_best": "loss"}, [(1, 3.0), (2, 1.0), (3, 2.0)], [2, 3]),
        ({"keep_best": ("loss", "max")}, [(1, 3.0), (2, 1.0), (3, 2.0)], [1, 3]),
        ({"keep_best": ("loss", "min", 2)}, [(1, 1.0), (2, 3.0), (3, 2.0), (4, 4.0)], [1, 3, 4]),
        ({"keep_best": ("loss", "min", 1)}, [(1, 1.0), (2, math.nan), (3, 2.0)], [1, 3]),
        ({"keep_best": ("loss", "min", 1)}, [(1, 1.0), (2, -math.inf), (3, 2.0)], [1, 3]),
        ({"keep_best": ("loss", "min", 1)}, [(1, math.nan), (2, math.nan)], [2]),
        ({"keep_best": ("loss", "min", 1)}, [(1, 1.0), (2, 1.0), (3, 5.0)], [2, 3]),  # of equals the newer
        ({"keep_best": ("accuracy", "max")}, [(1, 1.0), 2, 3], [3]),
        ({"keep_last": 1}, [(1, "mine"), 2, 3], [1, 3]),
        ({"keep_last": 1, "keep_tagged": False}, [(1, "mine"), 2, 3], [3]),
        ({}, [1, 1, 1], [1]),  # saved again: what was there before goes
        ({}, [(1, "mine"), 1, 1], [1, 1]),  # unless it has a tag
        ({"keep_tagged": False}, [(1, "mine"), 1], [1, 1]),  # that says nothing where everything is kept
        ({"keep_last": 2}, [1, 2, 2, 2], [1, 2]),
        ({"keep_best": "loss"}, [(1, 0.5), (1, 2.0), (3, 1.0)], [3]),  # what goes is not the best
        # what has a tag does not take the place of what was written over it
        ({"keep_best": "loss"}, [(1, 0.1, "mine"), (1, 5.0), (2, 1.0), (3, 2.0)], [1, 1, 2, 3]),
    ],
)
def test_what_stays(rules, checkpoints, expected):
    options = {"keep_last": None, "keep_every": None, "keep_best": None, "keep_tagged": True} | rules
    assert kept(check_rules(**options), saved(*checkpoints)) == expected


CHECKPOINTS = st.lists(
    st.tuples(st.integers(0, 6), st.floats(width=16), st.sampled_from(["", "tag"])).map(
        lambda c: c if c[2] else c[:2]
    ),
    min_size=1,
    max_size=12,
)
RULES = st.builds(
    Retention,
    keep_last=st.none() | st.integers(1, 4),
    keep_every=st.none() | st.integers(1, 4),
    keep_best=st.none()
    | st.builds(Best, st.just("loss"), st.sampled_from(["min", "max"]), st.integers(1, 3)),
    keep_tagged=st.booleans(),
)


@given(RULES, CHECKPOINTS, st.data())
@settings(deadline=None, max_examples=100)
def test_whatever_the_rules_the_one_just_written_and_the_best_stay(rules, checkpoints, data):
    manifests = saved(*checkpoints)
    written = data.draw(st.sampled_from(manifests))  # not always the last of the list
    gone = rules.discarded(manifests, written)
    stays = [manifest for manifest in manifests if manifest not in gone]
    assert written in stays
    newest = {manifest.step: manifest for manifest in manifests}
    if rules.keeps_all:
        assert {manifest.step for manifest in stays} == set(newest)
    if rules.keep_last is not None:
        assert max(newest.values(), key=lambda manifest: manifest.generation) in stays
    if rules.keep_tagged:
        assert all(manifest in stays for manifest in manifests if manifest.tags)
    finite = [manifest for manifest in newest.values() if math.isfinite(manifest.metrics["loss"])]
    if rules.keep_best is not None and finite:
        pick = min if rules.keep_best.mode == "min" else max
        best = pick(manifest.metrics["loss"] for manifest in finite)
        assert any(manifest.metrics["loss"] == best for manifest in stays)
    assert rules.discarded(stays, written) == []  # doing it again changes nothing


def test_ranks():
    manifests = saved((1, 2.0), (2, 1.0), (3, math.nan), 4, (5, 1.0), (6, math.inf))
    assert [one.step for one in ranked(manifests, "loss", "min")] == [5, 2, 1]
    assert [one.step for one in ranked(manifests, "loss", "max")] == [1, 5, 2]
    assert ranked(manifests, "other", "max") == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"keep_last": 0}, "keep_last is int 0; expected a whole number from 1."),
        ({"keep_last": 1.5}, "keep_last is float 1.5"),
        ({"keep_every": True}, "keep_every is bool True"),
        ({"keep_best": 5}, "keep_best is 5; expected a metric, 'min' or 'max', and how many: ('eval/loss'"),
        ({"keep_best": ()}, "keep_best is (); expected a metric"),
        ({"keep_best": (1, "min")}, "keep_best is (1, 'min'); expected a metric"),
        ({"keep_best": ("loss", "lowest")}, "mode is 'lowest'; expected 'min' or 'max'."),
        ({"keep_best": ("loss", "min", 0)}, "keep_best's n is int 0; expected a whole number from 1."),
    ],
)  # fmt: skip
def test_rules_that_make_no_sense_are_told(rules, message):
    options = {"keep_last": None, "keep_every": None, "keep_best": None, "keep_tagged": True} | rules
    with pytest.raises(CheckpointError, match=re.escape(message)):
        check_rules(**options)
