from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolshed.views.panels import Panel, arrange, printable, short, split_of, unit_of


def test_train_and_eval_of_a_metric_share_a_panel_and_everything_else_has_its_own():
    names = ["eval/loss", "train/loss", "optim/grad_norm", "train/accuracy", "loss", "test/loss"]
    assert arrange(names) == [
        Panel("loss", ("train/loss", "eval/loss")),
        Panel("optim/grad_norm", ("optim/grad_norm",)),
        Panel("accuracy", ("train/accuracy",)),
        Panel("loss", ("loss",)),
        Panel("test/loss", ("test/loss",)),
    ]


@given(st.lists(st.sampled_from(["train/a", "eval/a", "a", "train/", "eval/b/c", "b/c", "x/a"])))
def test_every_name_is_in_one_panel(names):
    shown = [name for panel in arrange(names) for name in panel.names]
    assert sorted(shown) == sorted(set(names))


@pytest.mark.parametrize(
    ("name", "split"),
    [("train/loss", "train"), ("eval/a/b", "eval"), ("train", None), ("train/", None), ("training/x", None)],
)
def test_the_split_is_the_first_part_of_a_name(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("speed/steps_per_second", "steps/s"),
        ("speed/examples_per_second", "examples/s"),
        ("my_tokens_per_second", "my tokens/s"),
        ("memory/device_bytes", "bytes"),
        ("time/epoch_seconds", "s"),
        ("train/loss", ""),
    ],
)
def test_units_are_those_that_names_tell(name, unit):
    assert unit_of(name) == unit


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("train/loss", "train/loss"),
        ("größe ∇ 損失", "größe ∇ 損失"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
        ("a\x1bMb", "ab"),
        ("two\nlines\tand  more", "two lines and more"),
        ("bell\x07 back\x08 csi\x9b31m", "bell\ufffd back\ufffd csi\ufffd31m"),
        ("right\u202eleft", "right\ufffdleft"),
        ("[bold]not rich[/bold] <b>$x$</b>", "[bold]not rich[/bold] <b>$x$</b>"),
    ],
)
def test_a_name_from_anywhere_is_one_line_of_text(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(1, 40))
def test_no_text_holds_a_sign_that_cannot_be_printed_or_is_longer_than_allowed(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


def test_a_name_that_is_too_long_lacks_its_middle():
    assert printable("beginning of it, and the end", 11) == "begin…e end"
    assert printable("beginning", 9) == "beginning"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (-0.25, "-0.25"),
        (0.0015, "0.0015"),
        (0.0003, "3e-4"),
        (-1.23456e-12, "-1.235e-12"),
        (1234.0, "1234"),
        (99999.0, "100k"),
        (2_500_000.0, "2.5M"),
        (6.1e9, "6.1G"),
        (1e30, "1e30"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_written_shortly(value, text):
    assert short(value) == text


@given(st.floats(-1e300, 1e300))
def test_a_short_number_is_the_number_to_four_digits(value):
    letters = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
    text = short(value)
    read = float(text[:-1]) * letters[text[-1]] if text[-1] in letters else float(text)
    assert read == pytest.approx(value, rel=6e-4)
    assert len(text) <= 11
