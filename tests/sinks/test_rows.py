"""Rows are the values of a step together; a configuration has what was given on top."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolshed
from tests.run.kept import data
from tests.sinks.small import NAMES, TRAINER, check, expected
from toolshed.errors import ToolshedError
from toolshed.sinks.rows import Row, config_of, load, rows
from toolshed.store import Block

values = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "z"])),
    st.dictionaries(st.integers(0, 40), st.floats(width=32, allow_nan=False), min_size=1),
)


@settings(deadline=None, max_examples=30)
@given(values)
def test_each_value_is_in_the_row_of_its_step_and_branch(values):
    blocks = [
        Block(name, branch, 0, np.asarray(sorted(of), np.int64), np.asarray([of[s] for s in sorted(of)], "f"))
        for (branch, name), of in values.items()
    ]
    found = list(rows(blocks))
    assert len(found) == len({(row.branch, row.step) for row in found})
    assert {(row.branch, name, row.step): value for row in found for name, value in row.values.items()} == {
        (branch, name, step): value for (branch, name), of in values.items() for step, value in of.items()
    }
    for branch in "ab":
        steps = [row.step for row in found if row.branch == branch]
        assert steps == sorted(steps)


def test_a_row_reads_as_what_it_is():
    block = Block("train/loss", "main", 0, np.asarray([3]), np.asarray([0.5], np.float32))
    assert list(rows([block])) == [Row("main", 3, {"train/loss": 0.5})]


def test_what_was_given_is_on_top_of_the_configuration():
    facts = {"config": {"seed": 3, "config": {"width": 8, "seed": "mine"}}}
    assert config_of(facts) == {"width": 8, "seed": "mine", "toolshed": {"seed": 3}}
    assert config_of({}) == {"toolshed": {}}


def test_what_is_not_installed_is_named_with_its_extra():
    with pytest.raises(
        ToolshedError, match=r"Nothing is not installed: pip install 'jax-toolshed\[none\]'\."
    ):
        load("toolshed_has_no_such_thing", "Nothing", "none")


def test_the_judge_of_the_other_tests_sees_one_wrong_value_and_one_that_is_missing():
    run = toolshed.Run(TRAINER, data())
    run.train(4, wait=True)
    run.wait()
    right = {name: expected(run, name, "main") for name in NAMES}
    check(right, run, "main")
    with pytest.raises(AssertionError):
        check({**right, "train/loss": {**right["train/loss"], 4: 0.0}}, run, "main")
    with pytest.raises(AssertionError):
        check({**right, "train/loss": {step: right["train/loss"][step] for step in (1, 2, 3)}}, run, "main")
