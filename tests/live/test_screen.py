"""What a run looks like as lines of text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.live.small_run import Event, SmallRun
from toolshed.live.screen import duration, encodable, frame, line
from toolshed.live.sparklines import ASCII, UNICODE

NASTY = "\x1b[31m[bold]red[/bold]\x1b]0;t\x07\n\x9b2J 損失 " + "long" * 30


def training() -> SmallRun:
    run = SmallRun(
        "digits", step=3000, goal=10_000, epoch=2.37, elapsed=192.3, remaining=754.0,
        steps_per_second=14_532.0, examples_per_second=464_000.0,
        device_bytes=6_123_456_789, device_limit=80_000_000_000,
    )  # fmt: skip
    steps = np.arange(1, 3001)
    run.log("speed/steps_per_second", steps[::50], 14_000 + steps[::50] / 10)
    run.log("train/accuracy", steps, steps / 3000)
    run.log("train/loss", steps, 3 - steps / 1500)
    run.log("eval/loss", steps[199::200], 3.1 - steps[199::200] / 1500)
    run.log("memory/device_bytes", [1, 2000], [6e9, 6.2e9])
    return run


def shown(run: SmallRun, width: int = 80, height: int = 40, signs=UNICODE) -> list[str]:
    return ["".join(text for text, _ in row).rstrip() for row in frame(run, width, height, signs)]


def test_the_header_says_how_far_the_run_is():
    first, bar, facts, *_ = shown(training(), 110)
    assert first.split("  ")[0] == "digits"
    assert first.split()[1] == "training"
    assert first.endswith("step 3,000 of 10,000")
    assert len(first) == 110
    assert bar.endswith(" 30 %")
    assert bar.count("━") == int(0.3 * (110 - 5))
    assert facts == (
        "epoch 2.37 · 3:12 elapsed · 12:34 left · 14.5k steps/s · 464k examples/s · 6.1 GB of 80.0 GB"
    )


def test_what_is_not_known_is_left_out():
    rows = shown(SmallRun("new", status="ready"))
    assert rows[0].split() == ["new", "ready", "step", "0"]
    assert rows[1:] == ["0:00 elapsed", "", "no values yet", ""]


def test_why_a_run_stopped_and_which_branch_it_is_on_are_told():
    run = training()
    run.move(status="failed", message="ValueError at step 3,000: the batch is empty", branch="b")
    rows = shown(run, 140)
    assert "failed" in rows[0]
    assert rows[2].endswith(" · branch b")
    assert rows[3] == "ValueError at step 3,000: the batch is empty"


def test_facts_that_do_not_fit_are_left_out_whole():
    assert shown(training(), 60)[2] == "epoch 2.37 · 3:12 elapsed · 12:34 left · 14.5k steps/s"


def test_panels_have_titles_newest_values_and_ranges():
    rows = shown(training(), 60)
    (loss,) = (place for place, row in enumerate(rows) if row.startswith("loss "))
    assert rows[loss].endswith("train 1  eval 1.1")
    assert rows[loss + 1].split()[0] == "3"  # 2.9993 to three digits; eval begins at 2.967
    assert rows[loss + 5].split()[0] == "1"
    titles = [row.split()[0] for row in rows if row and row[0] not in " ┊" and "/" in row.split()[0]]
    assert titles == ["speed/steps_per_second", "memory/device_bytes"]
    assert any(row.endswith("14.3k steps/s") for row in rows)
    assert any(row.endswith("6.2 GB") for row in rows)


def test_the_loss_comes_first_and_what_runs_log_by_themselves_last():
    rows = shown(training(), 60)
    order = [
        rows.index(next(row for row in rows if row.startswith(title))) for title in ("loss", "acc", "speed")
    ]
    assert order == sorted(order)


def test_ranges_have_as_many_digits_as_tell_them_apart():
    run = SmallRun()
    run.log("x", [1, 2], [0.97512, 0.97514])
    labels = [row.split()[0] for row in shown(run) if row.startswith(" ") and row[:8].strip()]
    assert labels == ["0.97514", "0.97512"]
    run = SmallRun()
    run.log("x", [1, 2], [-1.2345e-12, -1.23e-30])
    labels = [row[:8].strip() for row in shown(run) if row[:8].strip().startswith("-1")]
    assert labels == ["-1.2e-30", "-1.2e-12"]  # shorter, but never cut


def test_wide_screens_put_panels_beside_each_other():
    rows = shown(training(), 140)
    assert sum("loss" in row and "accuracy" in row for row in rows) == 1
    assert not any("loss" in row and "accuracy" in row for row in shown(training(), 80))


def test_panels_without_room_are_told_in_words():
    rows = shown(training(), 80, 11)
    assert len(rows) <= 10
    assert rows[4].startswith("loss ")
    assert rows[-1] == "train/accuracy 1 · speed/steps_per_second 14.3k steps/s"


def test_the_newest_events_are_told_and_marked():
    run = training()
    for step, kind in ((300, "edited"), (1500, "rows"), (2400, "saved"), (2500, "edited")):
        run.publish(kind, f"{kind} at {step} → x", step=step)
    rows = shown(run, 60)
    assert rows[-2:] == ["step 2,400: saved at 2400 → x", "step 2,500: edited at 2500 → x"]
    graph = [row[9:] for row in rows if "┊" in row]
    assert {place for row in graph for place, letter in enumerate(row) if letter == "┊"} <= {5, 42}
    assert graph


def test_events_of_other_branches_are_not_marked():
    run = SmallRun()
    run.log("x", np.arange(1, 51), np.zeros(50))
    run.publish("edited", "before the branch", step=10)
    run.publish("edited", "after it", step=40)
    assert sum("┊" in row for row in shown(run)) > 0
    both = max(row.count("┊") for row in shown(run))
    run.history.begin_branch("b", at=20)
    run.log("x", np.arange(21, 51), np.zeros(30))
    assert both == 2
    assert max(row.count("┊") for row in shown(run)) == 1


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(10, 200),
    height=st.integers(2, 60),
    count=st.integers(0, 9),
    signs=st.sampled_from([UNICODE, ASCII]),
)
def test_no_frame_is_larger_than_the_screen_or_holds_a_command(width, height, count, signs):
    run = SmallRun(NASTY, status="failed", message=NASTY, step=5, goal=3, branch=NASTY)
    for index in range(count):
        run.log(
            f"{('train', 'eval', 'x')[index % 3]}/{index // 2}{NASTY}", [1, 2, 9], [index, np.nan, -index]
        )
    run.publish("error", NASTY)
    rows = shown(run, width, height, signs)
    assert 1 <= len(rows) < max(2, height)
    assert max(map(cell_len, rows)) <= width
    assert all(row.isprintable() for row in rows)


def test_one_line_has_step_values_and_speed():
    assert line(training()) == (
        "digits: step 3,000 of 10,000, train/loss 1, eval/loss 1.1, train/accuracy 1, 14.5k steps/s,"
        " 12:34 left"
    )
    assert line(SmallRun("new", status="ready")) == "new: step 0, ready"
    assert line(SmallRun(NASTY)).isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00"),
        (59.99, "0:59"),
        (60.0, "1:00"),
        (3599.0, "59:59"),
        (3600.0, "1:00:00"),
        (90_061.0, "1 d 1:01:01"),
    ],
)
def test_durations_are_as_on_a_clock(seconds, text):
    assert duration(seconds) == text


def test_what_an_encoding_lacks_is_replaced():
    assert encodable("1 → 2 · ×ß", "utf-8") == "1 → 2 · ×ß"
    assert encodable("1 → 2 · ×ß", "ascii") == "1 -> 2 | x?"
    assert encodable("1 → 2 · ×ß", "latin-1") == "1 -> 2 | xß"


def test_the_autopsy_is_told_while_the_run_rests_where_it_failed():
    run = training()
    run.move(status="failed", message="The loss of step 3,001 is nan.")
    lines = ["", "  at       train.py:12 in loss_fn", f"           {NASTY}", "  near     params/w"]
    data = {"headline": "log gives -∞ for finite arguments", "lines": lines}
    run.events = (Event("autopsy", 3001, "main", 0.0, "log gives -∞", data),)
    rows = shown(run, 110)
    place = rows.index("autopsy of step 3,001: log gives -∞ for finite arguments")
    assert rows[place + 1 : place + 4 : 2] == ["  at       train.py:12 in loss_fn", "  near     params/w"]
    assert not any("\x1b" in row for row in rows)
    run.move(status="training")
    assert not any(row.startswith("autopsy") for row in shown(run, 110))
