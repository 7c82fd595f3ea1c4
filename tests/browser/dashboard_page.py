"""What a person sees, points at and pushes on the page of a dashboard."""

from __future__ import annotations

from typing import Any

from tests.browser.stage import Stage
from tests.live.scripted import ScriptedRun

BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


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


def change(stage: Stage, run: ScriptedRun, **progress: Any) -> None:
    """Changes the run's progress, and brings the page up to date."""
    run.set(**progress)
    stage.dashboard._update(run)
    stage.sync()
    stage.pump()
