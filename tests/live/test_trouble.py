"""Failures of a view: said once."""

from __future__ import annotations

import warnings

import pytest

from toolshed.errors import ViewWarning
from toolshed.live.trouble import TRIES, Trouble


def test_the_first_failure_is_a_warning_and_the_others_are_not():
    trouble = Trouble("The dashboard")
    with pytest.warns(
        ViewWarning, match=r"^The dashboard failed once, with ValueError: x\. The run goes on\.$"
    ):
        trouble.report(ValueError("x"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trouble.report(ValueError("y"))
    assert "ValueError: y" in trouble.text


def test_failures_in_a_row_stop_a_view_and_others_do_not():
    trouble = Trouble("The dashboard")
    with pytest.warns(ViewWarning):
        trouble.report(ValueError("x"))
    for _ in range(2 * TRIES):
        trouble.over()
        trouble.report(ValueError("x"))
    trouble.over()
    assert not trouble.stopped
    for _ in range(TRIES):
        trouble.report(ValueError("x"))
    assert trouble.stopped
    assert trouble.text == "The dashboard has stopped, after ValueError: x. The run is not touched."


def test_where_warnings_are_errors_the_view_s_thread_survives():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Trouble("The dashboard").report(ValueError("x"))
