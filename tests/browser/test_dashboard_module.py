"""The dashboard's module in a blank page, with a real widget behind it: all that needs no Jupyter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.stage import Stage
from tests.live.scripted import ScriptedRun, branched, event, log_training, training
from toolshed.live.dashboard import Dashboard

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
Show = Callable[..., Stage]
LAYOUT = """() => {
    const nodes = document.querySelectorAll("button, dd, .tl-plot, .tl-legend, input, summary");
    return [...nodes].map((node) => {
        const { x, y, width, height } = node.getBoundingClientRect();
        return [x, y, width, height].map(Math.round).join(" ");
    });
}"""


@pytest.fixture
def show(browser: Any) -> Any:
    """Shows a run in a page of its own, and says at the end whether anything went wrong in it."""
    stages = []

    def make(run: Any, *, width: int = 1000, **options: Any) -> Stage:
        context = browser.new_context(viewport={"width": width, "height": 1000}, **options)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto("about:blank")
        page.evaluate("() => { document.body.style.margin = 0; }")
        stage = Stage(page, Dashboard(run))
        stage.settle()
        stages.append((context, stage))
        return stage

    yield make
    for context, stage in stages:
        assert stage.errors == []
        context.close()


def plot(stage: Stage, title: str) -> Any:
    """The area of a panel's chart."""
    return stage.page.locator(f'[data-panel="{title}"] .u-over')


def point(stage: Stage, title: str, share: float) -> None:
    """Moves the pointer to a place on the x axis."""
    box = plot(stage, title).bounding_box()
    stage.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    stage.settle()


def drag(stage: Stage, title: str, start: float, stop: float) -> None:
    box = plot(stage, title).bounding_box()
    middle = box["y"] + box["height"] / 2
    stage.page.mouse.move(box["x"] + start * box["width"], middle)
    stage.page.mouse.down()
    stage.page.mouse.move(box["x"] + stop * box["width"], middle, steps=5)
    stage.page.mouse.up()
    stage.settle()


def zoom(stage: Stage) -> list[int]:
    return [int(step) for step in stage.page.locator(".toolshed-live").get_attribute("data-zoom").split()]


def legend(stage: Stage, title: str, label: str) -> Any:
    return stage.page.locator(f'[data-panel="{title}"] .tl-entry[data-label="{label}"]')


def button(stage: Stage, name: str) -> Any:
    return stage.page.locator(f'[data-button="{name}"]')


def ink(stage: Stage, title: str, color: tuple[int, int, int]) -> int:
    """How many dots of a chart have a colour."""
    return stage.page.evaluate(
        """([title, color]) => {
            const canvas = document.querySelector(`[data-panel="${title}"] canvas`);
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let dots = 0;
            for (let i = 0; i < data.length; i += 4) {
                dots += data[i + 3] > 200 && color.every((part, j) => Math.abs(data[i + j] - part) < 12);
            }
            return dots;
        }""",
        [title, list(color)],
    )


BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


# --- what it shows ----------------------------------------------------------------------------------


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
    stage.page.locator("summary").click()
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
    stage.page.locator("summary").click()
    stage.settle()
    assert stage.page.locator("img, script").count() == 0
    assert stage.page.evaluate("() => window.pwned") is None
    expect(stage.page.get_by_role("status")).to_have_text("<img src=x onerror=window.pwned=1>")


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


def change(stage: Stage, run: ScriptedRun, **progress: Any) -> None:
    """Changes the run's progress, and brings the page up to date."""
    run.set(**progress)
    stage.dashboard._update(run)
    stage.sync()
    stage.pump()


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


# --- looking closer ---------------------------------------------------------------------------------


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


# --- looks ------------------------------------------------------------------------------------------


def test_it_follows_the_notebook_s_theme_at_once(show):
    stage = show(training())
    root = stage.page.locator(".toolshed-live")
    expect(root).to_have_attribute("data-theme", "light")
    stage.page.evaluate("""() => {
        document.body.style.setProperty("--jp-ui-font-color1", "rgba(255, 255, 255, 0.87)");
        document.body.style.setProperty("--jp-layout-color1", "#111111");
    }""")
    expect(root).to_have_attribute("data-theme", "dark")
    stage.settle()
    assert ink(stage, "loss", BLUE) == 0
    assert ink(stage, "loss", (0x56, 0xB4, 0xE9)) > 300


def test_without_a_notebook_it_follows_the_browser(show):
    stage = show(training(), color_scheme="dark")
    expect(stage.page.locator(".toolshed-live")).to_have_attribute("data-theme", "dark")
    stage.page.emulate_media(color_scheme="light")
    expect(stage.page.locator(".toolshed-live")).to_have_attribute("data-theme", "light")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_texts_and_lines_stand_out_from_the_paper(show, color_scheme):
    """WCAG 2.2: 4.5 for text, 3 for lines and the edges of what can be used."""
    stage = show(training(), color_scheme=color_scheme)
    found = stage.page.evaluate("""() => {
        const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const over = (colors) => {
            for (const color of colors) { pixel.fillStyle = color; pixel.fillRect(0, 0, 1, 1); }
            const light = [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => {
                const share = part / 255;
                return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2];
        };
        const root = document.querySelector(".toolshed-live");
        const paper = getComputedStyle(root).backgroundColor;
        const contrast = (color) => {
            const [high, low] = [over([paper]), over([paper, color])].sort((a, b) => b - a);
            return (high + 0.05) / (low + 0.05);
        };
        const texts = [...root.querySelectorAll("h2, h3, dt, dd, label, summary, .tl-name, button")];
        const isOn = (node) => node.getAttribute("aria-disabled") !== "true" && node.offsetParent;
        const inUse = texts.filter(isOn);
        const lines = [0, 1, 2, 3].map((i) => getComputedStyle(root).getPropertyValue(`--tl-line-${i}`));
        return {
            text: Math.min(...inUse.map((node) => contrast(getComputedStyle(node).color))),
            line: Math.min(...lines.map((color) => contrast(color.trim()))),
        };
    }""")
    assert found["text"] >= 4.5
    assert found["line"] >= 3


@pytest.mark.parametrize("width", [320, 700, 1000, 2000])
def test_nothing_sticks_out_at_any_width(show, screenshot, width):
    run = training()
    run.can_save = True
    run.hyperparameters = {"learning_rate": 1e-3, "weight_decay": 1e-4, "a rather long hyperparameter": 1.0}
    stage = show(run, width=width)
    inside, outside = stage.page.evaluate("""() => {
        const root = document.querySelector(".toolshed-live");
        const apart = ".tl-chips, .tl-unseen, .tl-tip";
        const nodes = [...root.querySelectorAll("*")].filter((node) => !node.closest(apart));
        const right = root.getBoundingClientRect().right;
        return [
            document.documentElement.scrollWidth,
            nodes.filter((node) => node.offsetParent && node.getBoundingClientRect().right > right + 1)
                .map((node) => node.className),
        ];
    }""")
    assert inside == width
    assert outside == []
    screenshot(stage.page, f"dashboard_{width}")


def test_nothing_jumps_while_it_trains(show):
    run = training(900, goal=100_000)
    stage = show(run)
    before = stage.page.evaluate(LAYOUT)
    for step in (999, 1_000, 99_999):
        log_training(run.history, run.progress.step, step)
        change(stage, run, step=step, elapsed=step * 1.3, remaining=1e5, epoch=step / 7)
        assert stage.page.evaluate(LAYOUT) == before, step
    point(stage, "loss", 0.7)
    assert stage.page.evaluate(LAYOUT) == before, "nor under the pointer"
    change(stage, run, status="paused", message="Paused by a person.", steps_per_second=1e-3)
    assert stage.page.evaluate(LAYOUT) == before, "nor when it pauses"


def test_who_asked_for_less_motion_gets_none(show):
    moving = "() => document.getAnimations().filter((one) => one.effect.getTiming().iterations > 1).length"
    assert show(training()).page.evaluate(moving) == 1
    assert show(training(), reduced_motion="reduce").page.evaluate(moving) == 0


# --- life -------------------------------------------------------------------------------------------


def test_it_says_whether_it_is_looked_at(show):
    stage = show(training())
    looks = stage.dashboard._looks
    assert looks.interval() is not None
    stage.page.evaluate("""() => {
        const above = document.createElement("div");
        above.style.height = "5000px";
        document.body.prepend(above);
    }""")
    stage.pump_until(lambda: looks.interval() is None)
    stage.page.locator(".toolshed-live").scroll_into_view_if_needed()
    stage.pump_until(lambda: looks.interval() is not None)


def test_two_front_ends_of_one_run_show_the_same_and_zoom_each_for_itself(show):
    run = training(1000)
    first = show(run)
    first.page.evaluate("() => { window.open_(); }")
    first.settle()
    roots = first.page.locator(".toolshed-live")
    expect(roots).to_have_count(2)
    box = plot(first, "loss").first.bounding_box()
    first.page.mouse.move(box["x"] + 40, box["y"] + 40)
    first.page.mouse.down()
    first.page.mouse.move(box["x"] + 140, box["y"] + 40, steps=4)
    first.page.mouse.up()
    first.settle()
    assert roots.nth(0).get_attribute("data-zoom") != ""
    assert roots.nth(1).get_attribute("data-zoom") == ""
    change(first, run, status="paused")
    for i in (0, 1):
        expect(roots.nth(i)).to_have_attribute("data-status", "paused")


def test_what_is_closed_listens_no_more(show):
    stage = show(training())
    assert stage.page.evaluate("() => window.listening()") > 0
    stage.page.evaluate("() => window.close_()")
    assert stage.page.evaluate("() => window.listening()") == 0
    assert stage.page.locator(".toolshed-live").count() == 0
    stage.settle()
    assert stage.dashboard._looks.interval() is None


def test_when_the_kernel_is_gone_it_says_so_and_offers_nothing(show):
    run = training()
    stage = show(run)
    stage.page.evaluate("() => window.loseKernel()")
    stage.pump()
    expect(stage.page.get_by_role("alert")).to_contain_text("The kernel of this run is gone")
    expect(button(stage, "primary")).to_have_attribute("aria-disabled", "true")
    button(stage, "stop").click(force=True)
    stage.settle()
    assert run.asked == []


def test_a_frame_that_cannot_be_read_is_said_and_the_buttons_go_on(show):
    run = training()
    stage = show(run)
    stage.page.evaluate(
        """() => window.receive({ overview: btoa(String.fromCharCode(9, 0, 0, 0, 0, 0, 0, 0, 1)) })"""
    )
    expect(stage.page.get_by_role("alert")).to_contain_text("The view could not be drawn")
    assert stage.page.evaluate("() => window.errors.splice(0).length") > 0
    button(stage, "primary").click()
    stage.settle()
    assert run.asked == [("pause", {})]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_screenshots_to_look_at(show, screenshot, color_scheme):
    for name, run in (("training", training()), ("branches", branched())):
        stage = show(run, color_scheme=color_scheme)
        stage.page.get_by_label("Smoothing").fill("3")
        point(stage, "loss", 0.34)
        screenshot(stage.page, f"dashboard_{name}_{color_scheme}")
