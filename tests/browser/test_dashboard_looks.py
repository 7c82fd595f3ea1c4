"""The dashboard's colours, contrasts, widths and motion."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.dashboard_page import BLUE, change, ink, point
from tests.live.scripted import branched, log_training, training

LAYOUT = """() => {
    const nodes = document.querySelectorAll("button, dd, .tl-plot, .tl-legend, input, summary");
    return [...nodes].map((node) => {
        const { x, y, width, height } = node.getBoundingClientRect();
        return [x, y, width, height].map(Math.round).join(" ");
    });
}"""


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


def test_no_number_is_cut_off_at_any_width(show):
    run = training(900, goal=1_000_000)
    stage = show(run)
    held = {"snapshot_bytes": 260_000_000, "snapshot_budget": 268_000_000}
    device = {"device_bytes": 13_400_000_000, "device_limit": 80_000_000_000}
    rates = {"steps_per_second": 12_345.0, "examples_per_second": 123_456.0}
    times = {"epoch": 12_345.67, "elapsed": 40_000.0, "remaining": 100_000.0}
    change(stage, run, step=999_999, **held, **device, **rates, **times)
    figures = """() => [...document.querySelectorAll(".tl-figures dd")]
        .filter((node) => node.offsetParent && node.scrollWidth > node.clientWidth)
        .map((node) => node.textContent)"""
    for width in range(320, 1100, 20):
        stage.page.set_viewport_size({"width": width, "height": 900})
        assert stage.page.evaluate(figures) == [], width


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


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_screenshots_to_look_at(show, screenshot, color_scheme):
    for name, run in (("training", training()), ("branches", branched())):
        stage = show(run, color_scheme=color_scheme)
        stage.page.get_by_label("Smoothing").fill("3")
        point(stage, "loss", 0.34)
        screenshot(stage.page, f"dashboard_{name}_{color_scheme}")
