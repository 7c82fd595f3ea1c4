"""A person looks closer: values under the pointer, zooms, scales, smoothing, and which lines and panels."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.dashboard_page import BLUE, ORANGE, drag, ink, legend, plot, point, zoom
from tests.live.scripted import ScriptedRun, training


def test_the_pointer_shows_values_in_all_panels(show):
    run = training(1000)
    stage = show(run)
    point(stage, "loss", 0.5)
    texts = stage.page.locator(".tl-note").all_inner_texts()
    assert set(texts) == {"step 501"} or set(texts) == {"step 500"}
    step = int(texts[0].split()[1])
    value = float(legend(stage, "accuracy", "eval").inner_text().replace("eval", ""))
    seldom = run.history.series("eval/accuracy")
    nearest = np.abs(seldom.steps - step).argmin()
    assert value == pytest.approx(seldom.values[nearest], rel=1e-3)
    stage.page.mouse.move(1, 1)
    stage.settle()
    assert set(stage.page.locator(".tl-note").all_inner_texts()) == {""}
    last = run.history.last("train/loss")[1]
    expect(legend(stage, "loss", "train")).to_have_text(f"train{last:.4f}")


def test_dragging_zooms_all_panels_and_a_double_click_shows_all_again(show):
    stage = show(training(1001))
    drag(stage, "loss", 0.25, 0.5)
    start, stop = zoom(stage)
    assert start == pytest.approx(251, abs=4)
    assert stop == pytest.approx(501, abs=4)
    point(stage, "accuracy", 0.0)
    expect(stage.page.locator('[data-panel="loss"] .tl-note')).to_have_text(f"step {start}")
    plot(stage, "accuracy").dblclick()
    stage.settle()
    assert zoom(stage) == []


def test_a_zoom_shows_the_true_extremes_of_a_million_steps(show):
    run = ScriptedRun(status="training", step=1_000_000)
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    values[333_333 - 1] = 40
    run.history.append("train/loss", np.arange(1, 1_000_001), values)
    stage = show(run)
    drag(stage, "loss", 0.3, 0.36)
    for _ in range(6):  # closer and closer to the peak
        start, stop = zoom(stage)
        share = (333_333 - start) / (stop - start)
        drag(stage, "loss", max(share - 0.15, 0), min(share + 0.15, 1))
    start, stop = zoom(stage)
    assert stop - start < 400
    point(stage, "loss", (333_333 - start) / (stop - start))
    expect(legend(stage, "loss", "train")).to_have_text("train40.00")
    point(stage, "loss", (333_340 - start) / (stop - start))
    assert legend(stage, "loss", "train").inner_text() != "train40.00"


def test_a_zoomed_line_of_few_values_reaches_the_edges(show):
    stage = show(training(1001))  # evaluated every 50 steps
    drag(stage, "loss", 0.26, 0.34)
    expect(stage.page.locator(".toolshed-live")).to_have_attribute("data-fine", "yes")
    left, right, width = stage.page.evaluate(
        """(color) => {
            const canvas = document.querySelector('[data-panel="loss"] canvas');
            const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const inked = new Set();
            for (let i = 0; i < data.length; i += 4) {
                if (color.every((part, j) => Math.abs(data[i + j] - part) < 12)) inked.add((i / 4) % width);
            }
            return [Math.min(...inked), Math.max(...inked), width];
        }""",
        list(ORANGE),
    )
    assert left <= 66  # where the plot begins
    assert right >= width - 24  # and where it ends


def test_a_zoom_asks_once_and_not_for_each_frame(show):
    run = training(1000)
    stage = show(run)
    sent = []
    pump = stage.pump
    stage.pump = lambda: (sent.extend(messages := pump()), messages)[1]
    drag(stage, "loss", 0.2, 0.4)
    for _ in range(5):
        stage.sync()
        stage.pump()
    assert [message["kind"] for message in sent if message.get("kind") == "window"] == ["window"]


def test_what_lies_outside_of_the_values_cannot_be_zoomed_to(show):
    stage = show(training(1000))
    chart = stage.page.locator('[data-panel="loss"] .tl-plot')
    chart.focus()
    for key in ["+"] * 3 + ["Shift+ArrowLeft"] * 20:
        chart.press(key)
    stage.settle()
    assert zoom(stage)[0] == 1
    for _ in range(12):
        chart.press("-")
    stage.settle()
    assert zoom(stage) == []


def test_the_log_switch_says_what_it_cannot_show(show):
    run = ScriptedRun(status="paused", step=100)
    run.history.append("train/loss", np.arange(1, 101), np.linspace(10, -1, 100))
    run.history.append("train/accuracy", np.arange(1, 101), np.linspace(1e-5, 1, 100))
    stage = show(run)
    for switch in stage.page.locator(".tl-switch").all():
        switch.click()
    stage.settle()
    note = stage.page.locator('[data-panel="loss"] .tl-note')
    expect(note).to_have_text("values ≤ 0 are not on the log scale")
    expect(stage.page.locator('[data-panel="accuracy"] .tl-note')).to_have_text("")
    assert ink(stage, "accuracy", BLUE) > 100


def test_smoothing_keeps_the_raw_line_faint(show):
    stage = show(training(1000))
    before = ink(stage, "loss", BLUE)
    slider = stage.page.get_by_label("Smoothing")
    slider.fill("3")
    stage.settle()
    expect(slider).to_have_attribute("aria-valuetext", "30 steps")
    assert 0 < ink(stage, "loss", BLUE) < before
    assert stage.dashboard.settings["smoothing"] == 3


def test_a_line_is_hidden_by_its_name(show):
    stage = show(training())
    entry = legend(stage, "loss", "eval")
    entry.click()
    stage.settle()
    expect(entry).to_have_attribute("aria-pressed", "false")
    assert ink(stage, "loss", ORANGE) == 0
    assert ink(stage, "loss", BLUE) > 300
    entry.click()
    stage.settle()
    assert ink(stage, "loss", ORANGE) > 100


def test_panels_are_chosen_and_the_choice_survives_a_reload(show):
    run = training()
    stage = show(run)
    expect(stage.page.locator('[data-panel="optim/update_norm"]')).to_have_count(0)
    stage.page.get_by_role("button", name="optim/update_norm").click()
    stage.page.get_by_role("button", name="accuracy", exact=True).click()
    stage.page.locator('[data-panel="loss"] .tl-switch').click()
    stage.settle()
    settings = stage.dashboard.settings
    assert settings["panels"] == {"optim/update_norm": True, "accuracy": False}
    again = show(run)
    again.page.evaluate("() => { window.close_(); }")
    again.page.evaluate("(settings) => { window.receive({ settings }); window.open_(); }", settings)
    again.pump()
    expect(again.page.locator('[data-panel="optim/update_norm"]')).to_have_count(1)
    expect(again.page.locator('[data-panel="accuracy"]')).to_have_count(0)
    expect(again.page.locator('[data-panel="loss"] .tl-switch')).to_have_attribute("aria-pressed", "true")
