"""A run is steered from the dashboard's buttons and fields, by pointer and by keyboard."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect

from tests.browser.dashboard_page import button, change
from tests.live.scripted import event, training

# --- steering ---------------------------------------------------------------------------------------


def test_the_buttons_ask_for_what_the_run_can_do(show):
    run = training()
    stage = show(run)
    expect(button(stage, "save")).to_be_hidden()
    for status, first, action, enabled in [
        ("ready", "Train", "train", {"primary", "step", "back"}),
        ("training", "Pause", "pause", {"primary", "stop"}),
        ("evaluating", "Pause", "pause", {"primary", "stop"}),
        ("pausing", "Pausing", None, {"stop"}),
        ("paused", "Resume", "resume", {"primary", "step", "back", "stop"}),
        ("finished", "Train", "train", {"primary", "step", "back"}),
        ("failed", "Train", "train", {"primary", "step", "back"}),
    ]:
        change(stage, run, status=status)
        expect(button(stage, "primary")).to_have_text(first)
        for name in ("primary", "step", "back", "stop"):
            run.asked.clear()
            button(stage, name).click(force=True)
            stage.pump()
            if name in enabled:
                assert run.asked == [(action if name == "primary" else name, {})], status
            else:
                assert run.asked == [], (status, name)
                expect(button(stage, name)).to_have_attribute("aria-disabled", "true")


def test_a_run_that_can_save_has_a_button_for_it(show):
    run = training()
    run.can_save = True
    stage = show(run)
    button(stage, "save").click()
    stage.settle()
    assert run.asked == [("save", {})]


def test_a_hyperparameter_is_edited_by_enter(show):
    run = training()
    stage = show(run)
    field = stage.page.get_by_label("learning rate", exact=True)
    expect(field).to_have_value("0.001")
    field.fill("3e-4")
    field.press("Enter")
    stage.settle()
    assert run.asked == [("edit", {"learning_rate": 3e-4})]
    run.hyperparameters = {"learning_rate": float(np.float32(3e-4))}
    stage.dashboard._update(run)
    stage.sync()
    expect(field).to_have_value("0.0003")
    expect(field).not_to_have_attribute("data-edited", "yes")


def test_a_value_that_is_being_typed_is_not_written_over_and_escape_takes_it_back(show):
    run = training()
    stage = show(run)
    field = stage.page.get_by_label("learning rate", exact=True)
    field.fill("0.5")
    run.hyperparameters = {"learning_rate": 7e-4}
    stage.dashboard._update(run)
    stage.sync()
    stage.pump()
    expect(field).to_have_value("0.5")
    field.press("Escape")
    expect(field).to_have_value("0.0007")
    assert run.asked == []


def test_what_is_no_number_is_not_sent(show):
    run = training()
    stage = show(run)
    field = stage.page.get_by_label("learning rate", exact=True)
    for text in ("fast", "", "1e999", "NaN"):
        field.fill(text)
        field.press("Enter")
        stage.settle()
        expect(field).to_have_attribute("aria-invalid", "true")
    assert run.asked == []


# --- keyboard and screen reader ---------------------------------------------------------------------


def test_everything_can_be_reached_and_used_by_keyboard(show):
    run = training(1000)
    run.set(status="paused")
    stage = show(run)
    page, reached = stage.page, []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const n = document.activeElement; return n.dataset.button ?? n.dataset.label"
                " ?? n.getAttribute('aria-label') ?? n.title ?? n.tagName; }"
            )
        )
    wanted = {"primary", "step", "back", "stop", "train", "eval", "loss: logarithmic y axis"}
    assert wanted <= set(reached)
    assert any(name.startswith("loss at step 1,000: train") for name in reached)
    button(stage, "step").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    stage.settle()
    assert run.asked == [("step", {}), ("step", {})]


def test_the_arrows_read_values_aloud(show):
    run = training(100)
    run.events = (event("edited", 50, "learning_rate 0.1 → 0.2"),)
    stage = show(run)
    chart = stage.page.locator('[data-panel="loss"] .tl-plot')
    chart.focus()
    chart.press("Home")
    chart.press("ArrowRight")
    stage.settle()
    loss = run.history.series("train/loss").values[1]
    expect(stage.page.locator("[aria-live]")).to_contain_text(f"loss at step 2: train {loss:.4g}"[:26])
    for _ in range(48):
        chart.press("ArrowRight")
    stage.settle()
    expect(stage.page.locator("[aria-live]")).to_contain_text("learning_rate 0.1 → 0.2")


def test_the_notebook_s_own_shortcuts_stay_away_from_our_keys(show):
    stage = show(training())
    root = stage.page.locator(".toolshed-live")
    stage.page.evaluate("""() => {
        window.heard = [];
        document.addEventListener("keydown", (event) => {
            const away = event.target.closest("[data-lm-suppress-shortcuts]");
            window.heard.push(`${event.key} ${away ? "ours" : "theirs"}`);
        }, true);
    }""")
    button(stage, "stop").focus()
    for key in ("Enter", "x", "Control+s", "Shift+Enter"):
        stage.page.keyboard.press(key)
    assert root.count() == 1
    heard = stage.page.evaluate("() => window.heard")
    assert [each for each in heard if each[:5] not in ("Contr", "Shift")] == [
        "Enter ours", "x ours", "s theirs", "Enter theirs",
    ]  # fmt: skip
