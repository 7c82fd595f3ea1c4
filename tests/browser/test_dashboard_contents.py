"""The dashboard's module in a blank page, with a real widget behind it: what it shows of a run."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect

from tests.browser.dashboard_page import BLUE, ORANGE, button, change, ink, legend, point
from tests.live.scripted import ScriptedRun, branched, event, log_training, training


def test_it_shows_the_run_and_goes_on_showing_it(show):
    run = training(name="digits")
    stage = show(run)
    page = stage.page
    expect(page.get_by_role("heading", name="digits")).to_be_visible()
    expect(page.locator(".tl-status")).to_have_text("Training")
    expect(page.locator('[data-figure="Step"] dd')).to_have_text("1,234 / 5,000")
    expect(page.locator('[data-figure="Elapsed"] dd')).to_have_text("0:12")
    expect(page.locator('[data-figure="Left"] dd')).to_have_text("1:03")
    expect(page.locator('[data-figure="Snapshots"] dd')).to_have_text("12.3 / 64 MB")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuetext", "step 1,234 of 5,000")
    expect(page.locator('[data-figure="Device memory"]')).to_be_hidden()  # the device does not tell
    last = run.history.last("train/loss")[1]
    expect(legend(stage, "loss", "train")).to_have_text(f"train{last:.4f}")
    assert ink(stage, "loss", BLUE) > 300
    assert ink(stage, "loss", ORANGE) > 100
    log_training(run.history, 1234, 2000)
    run.set(step=2000)
    step = page.locator('[data-figure="Step"] dd')
    stage.pump_until(lambda: step.inner_text() == "2,000 / 5,000")  # the dashboard's own thread brings it
    assert legend(stage, "loss", "train").inner_text().endswith(f"{run.history.last('train/loss')[1]:.4f}")


def test_before_the_first_step_it_says_what_will_come(show):
    stage = show(ScriptedRun())
    expect(stage.page.get_by_text("No values yet.")).to_be_visible()
    expect(stage.page.locator(".tl-status")).to_have_text("Ready")
    expect(button(stage, "primary")).to_have_text("Train")


def test_a_single_value_is_seen(show):
    run = ScriptedRun(status="training", step=1)
    run.history.append("train/loss", [1], [2.3])
    stage = show(run)
    assert ink(stage, "loss", BLUE) > 4
    expect(legend(stage, "loss", "train")).to_have_text("train2.300")


def test_a_failure_is_said_at_once(show):
    run = training()
    stage = show(run)
    expect(stage.page.get_by_role("alert")).to_have_count(0)
    change(stage, run, status="failed", message="NonFiniteError: the loss of step 1,235 is NaN.")
    expect(stage.page.get_by_role("alert")).to_have_text("NonFiniteError: the loss of step 1,235 is NaN.")


def test_values_that_are_not_finite_are_marks_and_said(show):
    run = ScriptedRun(status="failed", step=102)
    run.history.append("train/loss", np.arange(1, 103), [*np.linspace(2, 1, 100), np.nan, np.inf])
    run.events = (event("nonfinite", 101, "train/loss is NaN at step 101", name="train/loss"),)
    stage = show(run)
    expect(legend(stage, "loss", "train")).to_have_text("train∞")
    tip = stage.page.locator(".tl-tip")
    point(stage, "loss", 0.999)
    expect(tip).to_have_text("step 102: train is not finite")
    point(stage, "loss", 100 / 101)
    expect(tip).to_have_text("step 101: train/loss is NaN at step 101")


def test_events_are_marks_with_words_and_a_list(show):
    stage = show(training(1000))
    point(stage, "accuracy", (333 - 1) / 999)
    said = stage.page.locator('[data-panel="accuracy"] .tl-tip')
    expect(said).to_have_text("step 333: learning_rate 0.001 → 0.0003")
    expect(stage.page.locator('[data-panel="loss"] .tl-tip')).to_have_text(said.inner_text())
    stage.page.locator("summary", has_text="Events").click()
    expect(stage.page.locator(".tl-events li")).to_have_text(
        ["500saved as best", "333learning_rate 0.001 → 0.0003"]
    )


def test_other_branches_are_faint_and_can_be_hidden(show):
    stage = show(branched())
    expect(stage.page.locator(".tl-branch")).to_have_text("on b2")
    before = stage.page.screenshot()
    legend(stage, "loss", "others").click()
    stage.settle()
    assert stage.page.screenshot() != before
    expect(legend(stage, "loss", "others")).to_have_attribute("aria-pressed", "false")


def test_hostile_names_are_text(show):
    run = training(name='</script><img src=x onerror="window.pwned = 1">')
    hostile = '"><img src=x onerror="window.pwned = 1">\u202e' + "long/" * 40
    run.history.append(f"train/{hostile}", np.arange(1, 50), np.ones(49))
    run.history.append(hostile, np.arange(1, 50), np.ones(49))
    run.hyperparameters = {"<img src=x onerror=window.pwned=1>": 1.0}
    run.events = (event("error", 10, "<img src=x onerror=window.pwned=1>", name=hostile),)
    run.set(message="<img src=x onerror=window.pwned=1>")
    stage = show(run, width=700)
    stage.page.locator("summary", has_text="Events").click()
    stage.settle()
    assert stage.page.locator("img, script").count() == 0
    assert stage.page.evaluate("() => window.pwned") is None
    expect(stage.page.get_by_role("status")).to_have_text("<img src=x onerror=window.pwned=1>")
