"""Heat maps, ridges and the autopsy in the dashboard's module: all of them that needs no Jupyter."""

from __future__ import annotations

from typing import Any

import numpy as np
from playwright.sync_api import expect

from tests.browser.dashboard_page import drag
from tests.live.scripted import ScriptedRun, event, training, watch
from tests.live.test_autopsies import DATA
from toolshed.errors import RunError

RED = (0xC4, 0x16, 0x1C)
HOSTILE = "<img src=x onerror=window.ran=1>"


def cells(stage: Any, color: tuple[int, int, int]) -> int:
    """How many dots of the heat map have a colour."""
    return stage.page.evaluate(
        """(color) => {
            const canvas = document.querySelector(".tl-heat canvas");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            let dots = 0;
            for (let i = 0; i < data.length; i += 4) {
                dots += data[i + 3] > 200 && color.every((part, j) => Math.abs(data[i + j] - part) < 3);
            }
            return dots;
        }""",
        list(color),
    )


def heat(stage: Any) -> Any:
    return stage.page.locator(".tl-heat")


def test_what_is_not_finite_is_striped_in_a_colour_that_no_number_has(show):
    run = training()
    seen = watch(run, 6, range(1, 1234, 10), every=10)
    stage = show(run)
    assert cells(stage, RED) == 0
    for step in range(1101, 1234, 10):
        seen.append("main", step, np.full((6, 2), [np.nan, 1.0], np.float32))
    run.set(step=1241)
    stage.pump_until(lambda: cells(stage, RED) > 1000)


def test_of_many_arrays_a_page_is_shown_and_the_others_are_a_click_away(show):
    run = training()
    seen = watch(run, 90, range(1, 1234, 10), every=10)
    stage = show(run)
    expect(stage.page.get_by_text("1 to 40 of 90")).to_be_visible()
    for after in ("41 to 80 of 90", "81 to 90 of 90"):
        stage.page.get_by_label("Arrays after these").click()
        stage.pump_until(lambda after=after: stage.page.get_by_text(after).count())
    expect(stage.page.get_by_label("Arrays after these")).to_be_disabled()
    heat(stage).press("ArrowDown")
    assert heat(stage).get_attribute("aria-label").startswith(seen.paths[81])


def test_zooming_shows_each_look_by_itself(show):
    run = training()
    watch(run, 4, range(1, 1001))
    stage = show(run)
    columns = "() => +document.querySelector('.tl-map').dataset.columns"
    assert stage.page.evaluate(columns) <= 200
    drag(stage, "loss", 0.3, 0.4)
    stage.settle()
    start, stop = map(int, stage.page.locator(".toolshed-live").get_attribute("data-zoom").split())
    assert stage.page.evaluate(columns) == stop - start + 1


class Failing(ScriptedRun):
    """A run that has no histograms to give."""

    def histograms(self, path: str, *, most: int) -> Any:
        raise RunError(f"{path}: by the test {HOSTILE}")


def test_ridges_that_cannot_be_had_are_said_and_the_rest_goes_on(show):
    run = training()
    run.__class__ = Failing
    watch(run, 4, range(1, 1234, 10), every=10)
    stage = show(run)
    heat(stage).press("Enter")
    ridges = stage.page.locator(".tl-ridges")
    stage.pump_until(lambda: ridges.get_attribute("data-state") == "failed")
    expect(ridges).to_contain_text(f"by the test {HOSTILE}")
    run.set(step=1240)
    stage.pump_until(lambda: "1,240" in stage.page.locator('[data-figure="Step"] dd').inner_text())


def test_the_autopsy_opens_where_the_run_failed_and_folds_when_it_goes_on(show):
    run = training()
    stage = show(run)
    autopsy = stage.page.locator(".tl-autopsy")
    expect(autopsy).to_be_hidden()
    run.set(status="failed", message="The loss of step 1,235 is nan.")
    run.happen(event("autopsy", 1235, **DATA))
    stage.pump_until(autopsy.is_visible)
    expect(autopsy.locator("summary")).to_have_text("Autopsy of step 1,235log gives -∞ for finite arguments")
    expect(autopsy.locator("code")).to_have_text("return jnp.log(p)")
    assert autopsy.get_attribute("open") is not None
    expect(autopsy.locator("tr.tl-bad th")).to_have_text("x")
    run.set(status="training", message="")
    stage.pump_until(lambda: autopsy.get_attribute("open") is None)


def test_names_and_lines_are_text_whatever_they_hold(show):
    run = training()
    watch(run, 3, range(1, 50), pattern=f"{HOSTILE}/**")
    data = {"headline": HOSTILE, "lines": ["", HOSTILE], "batch": {"fields": [{"path": HOSTILE}]}}
    run.events += (event("autopsy", 7, **data),)
    run.set(status="failed")
    stage = show(run, width=320)
    heat(stage).press("ArrowDown")
    expect(stage.page.locator(".tl-map .tl-tip")).to_contain_text(HOSTILE)
    assert stage.page.locator(".toolshed-live img").count() == 0
    assert stage.page.evaluate("() => window.ran === undefined")
    root = stage.page.locator(".toolshed-live")
    assert root.evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
