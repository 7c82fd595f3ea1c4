"""A history keeps the values of every branch, and a line is all that led to one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.run.histories import NAME, as_dict, with_branches
from toolshed.run import Branch, History


def test_a_line_is_what_led_to_a_branch_and_what_it_did():
    kept = with_branches()
    main = {step: float(step) for step in range(1, 7)}
    assert as_dict(kept.series(NAME, "main")) == main
    assert as_dict(kept.series(NAME, "b")) == {1: 1, 2: 2, 3: 3, 4: 204, 5: 205}
    assert as_dict(kept.series(NAME, "c")) == {1: 1, 2: 2, 3: 3, 4: 204, 5: 305, 6: 306}
    assert as_dict(kept.series(NAME)) == {1: 1, 2: 2, 3: 403}  # "d" left before "b" had begun
    assert kept.branches == (
        Branch("main", None, 0),
        Branch("b", "main", 3),
        Branch("c", "b", 4),
        Branch("d", "c", 2),
    )


def test_a_branch_s_own_values_are_those_after_it_left():
    kept = with_branches()
    assert as_dict(kept.series(NAME, "c", own=True)) == {5: 305, 6: 306}
    assert kept.window(NAME, 0, 9, 10, "c", own=True).low.tolist() == [305, 306]
    assert kept.window(NAME, 0, 9, 10, "c").low.tolist() == [1, 2, 3, 204, 305, 306]


def test_an_old_branch_goes_on_where_it_was():
    kept = with_branches()
    kept.switch("main")
    kept.append(NAME, [7], [7])
    assert kept.branch == "main"
    assert as_dict(kept.series(NAME)) == {step: float(step) for step in range(1, 8)}
    assert as_dict(kept.series(NAME, "b")) == {1: 1, 2: 2, 3: 3, 4: 204, 5: 205}


def test_a_name_that_a_line_has_no_values_of_is_empty_there():
    kept = with_branches()
    kept.append("new", 9, 1.0)
    assert as_dict(kept.series("new", "main")) == {}
    assert kept.window("new", 0, 9, 10, "main").steps.tolist() == []
    assert kept.last("new", "main") is None
    assert kept.last(NAME, "b") == (5, 205.0)
    assert kept.bounds("b") == (1, 5)
    assert kept.bounds() == (1, 9)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_whatever_is_written_lines_are_those_of_a_table_of_steps(data):
    """Against a model of a history that copies a whole dict at each branch."""
    kept, lines, owns, ends = History(), {"main": {}}, {"main": {}}, {"main": 0}
    for turn in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["append", "append", "branch", "branch", "switch", "look"]))
        here = kept.branch
        if action == "append":
            steps = ends[here] + np.cumsum(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=40)))
            block = {int(step): float(turn * 1000 + step) for step in steps}
            kept.append(NAME, list(block), list(block.values()))
            lines[here].update(block)
            owns[here].update(block)
            ends[here] = int(steps[-1])
        elif action == "branch":
            at, name = data.draw(st.integers(0, ends[here])), f"branch {turn}"
            kept.begin_branch(name, at=at)
            lines[name] = {step: value for step, value in lines[here].items() if step <= at}
            owns[name], ends[name] = {}, at
        elif action == "switch":
            kept.switch(data.draw(st.sampled_from(list(lines))))
        elif kept.names:  # what is kept from here on must still be right later
            assert as_dict(kept.series(NAME)) == lines[here]
    for name, line in lines.items():
        if kept.names:
            assert as_dict(kept.series(NAME, name)) == line
            assert as_dict(kept.series(NAME, name, own=True)) == owns[name]
            assert kept.last(NAME, name) == (list(line.items())[-1] if line else None)
            assert kept.bounds(name) == ((min(line), max(line)) if line else (0, 0))
            start, stop = sorted([data.draw(st.integers(0, 60)), data.draw(st.integers(0, 60))])
            window = kept.window(NAME, start, stop, 1000, name)
            assert window.steps.tolist() == [step for step in line if start <= step <= stop]


def test_a_thousand_rewinds_can_be_drawn():
    kept = History()
    for turn in range(1000):
        kept.begin_branch(f"again {turn}", at=turn)
        kept.append(NAME, [turn + 1, turn + 2], [turn, -1])
    window = kept.window(NAME, 0, 2000, 100)
    assert window.high.max() == 999
    assert len(kept.series(NAME).steps) == 1001
    assert as_dict(kept.series(NAME))[1001] == -1
