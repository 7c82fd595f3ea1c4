"""What the dashboard does when it is out of sight, shown twice, closed, or has lost its kernel."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.dashboard_page import button, change, plot
from tests.live.scripted import training


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
    stage.pump_until(lambda: stage.dashboard._looks._views)  # it has been heard
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
