"""A browser for each worker, a JupyterLab for each theme, and screenshots to look at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser import jupyterlab
from tests.browser.stage import Stage
from toolshed.live.dashboard import Dashboard

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SCREENSHOTS = Path(__file__).parent / "screenshots"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is in this folder."""
    quiet = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            item.add_marker(quiet)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=jupyterlab.CHROMIUM, args=jupyterlab.CHROMIUM_ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=["light", "dark"])
def lab(request: Any, tmp_path_factory: Any) -> Iterator[tuple[str, jupyterlab.Server]]:
    root = tmp_path_factory.mktemp(f"lab-{request.param}")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, root)
    with jupyterlab.serve(root, theme=f"JupyterLab {request.param.title()}") as server:
        yield request.param, server


@pytest.fixture
def page(browser: Browser) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page
    context.close()


@pytest.fixture
def screenshot() -> Any:
    SCREENSHOTS.mkdir(exist_ok=True)
    return lambda page, name: page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture
def show(browser: Browser) -> Iterator[Callable[..., Stage]]:
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
