"""A notebook with the dashboard of a run in it, opened in a JupyterLab of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.browser import jupyterlab

ROOT = ".toolshed-live"


class Live(NamedTuple):
    """The opened notebook with the run's dashboard in it."""

    page: Any
    server: jupyterlab.Server
    context: Any
    errors: list[str]

    def attribute(self, name: str) -> str:
        return self.page.locator(ROOT).get_attribute(f"data-{name}")

    def wait(self, condition: str, arg: Any = None) -> None:
        """Until something is true of ``root``, the dashboard's element."""
        self.page.wait_for_function(
            f"(arg) => {{ const root = document.querySelector('{ROOT}'); return root && ({condition}); }}",
            arg=arg,
        )

    def wait_for_status(self, status: str) -> None:
        self.wait("root.dataset.status === arg", status)

    def press(self, button: str) -> None:
        self.page.locator(f'{ROOT} [data-button="{button}"]').click()

    def ask(self, expression: str) -> str:
        return jupyterlab.ask_kernel(self.page, expression)


@contextlib.contextmanager
def opened(browser: Any, path: Path, cells: Iterable[str], *, height: int) -> Iterator[Live]:
    """A notebook of these cells, in a page 1,200 pixels wide; no cell has been run."""
    jupyterlab.write_notebook(path, cells)
    with jupyterlab.serve(path.parent) as server:
        context = browser.new_context(viewport={"width": 1200, "height": height})
        page, errors = context.new_page(), []
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        jupyterlab.open_notebook(page, server, path.name)
        yield Live(page, server, context, errors)
        context.close()
