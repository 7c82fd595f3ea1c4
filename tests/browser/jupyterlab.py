"""A real JupyterLab on a free port, with folders of its own, and what a test does in it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat

CHROMIUM = shutil.which("chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SETTINGS = "@jupyterlab/apputils-extension"


def write_notebook(path: Path, cells: Iterable[str]) -> None:
    """A notebook of these code cells, for the kernel of this Python."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


class Server(NamedTuple):
    """Where a server is and what opens it."""

    url: str
    token: str
    root: Path


@contextlib.contextmanager
def serve(root: Path, *, theme: str = "JupyterLab Light") -> Iterator[Server]:
    """Runs JupyterLab on the folder ``root`` until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, home = uuid.uuid4().hex, root / ".jupyter-home"
    names = ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"]
    environment = {
        **os.environ,
        **{f"JUPYTER_{name}": str(home / name.lower()) for name in names},
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JAX_PLATFORMS": "cpu",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    settings = {
        f"{_SETTINGS}/notification.jupyterlab-settings": {"fetchNews": "false"},
        f"{_SETTINGS}/themes.jupyterlab-settings": {"theme": theme},
    }
    for name, values in settings.items():
        path = home / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    options = [
        "--no-browser",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--allow-root",
        f"--ServerApp.root_dir={root}",
        "--expose-app-in-browser",
        "--JupyterNotebookApp.expose_app_in_browser=True",  # Notebook 7, at /notebooks
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    home.mkdir(exist_ok=True)
    with (home / "server.log").open("w") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        process = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=log)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", process, home / "server.log")
            yield Server(f"http://127.0.0.1:{port}", token, root)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


def open_notebook(page: Any, server: Server, name: str) -> None:
    """Opens a notebook in a fresh workspace and waits for its kernel."""
    workspace = uuid.uuid4().hex[:8]
    page.goto(f"{server.url}/lab/workspaces/{workspace}/tree/{name}?token={server.token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function(
        """() => {
            const kernel = window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel;
            return kernel && kernel.status === 'idle';
        }""",
        timeout=90_000,
    )


def run_all(page: Any) -> None:
    """Runs all cells and waits for the last."""
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells'); }")


def command(page: Any, name: str, **arguments: Any) -> None:
    """Executes one of JupyterLab's commands and waits for it."""
    page.evaluate(
        "async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }", [name, arguments]
    )


def outputs(page: Any) -> list[dict[str, Any]]:
    """All outputs of the open notebook, as the document model has them."""
    return page.evaluate(
        """() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells
            .flatMap(cell => cell.outputs ?? [])"""
    )


def reveal(page: Any, locator: Any) -> None:
    """Scrolls to something that JupyterLab may not have attached yet, as it draws cells in sight alone."""
    for _ in range(5):  # from top to bottom, again where the notebook was not laid out yet
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.content.scrollToItem(0); }")
        for _ in range(60):
            if locator.count():
                locator.scroll_into_view_if_needed()
                page.wait_for_timeout(300)  # treescope draws what has come into sight
                return
            page.mouse.move(600, 500)
            page.mouse.wheel(0, 400)
            page.wait_for_timeout(150)
    raise AssertionError(f"{locator} did not come into sight")


def run_cell(page: Any, index: int) -> None:
    """Runs one cell and waits for it."""
    page.evaluate(
        """async (index) => {
            window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
            await window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        index,
    )


def start_cell(page: Any, index: int) -> None:
    """Starts one cell and does not wait."""
    page.evaluate(
        """(index) => {
            window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
            window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        index,
    )


def _wait_for_status(page: Any, status: str) -> None:
    page.wait_for_function(
        "(s) => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === s", arg=status
    )


def wait_until_busy(page: Any) -> None:
    """Waits until the kernel works."""
    _wait_for_status(page, "busy")


def wait_until_idle(page: Any) -> None:
    """Waits until the kernel has nothing to do."""
    _wait_for_status(page, "idle")


def cell_text(page: Any, index: int) -> str:
    """What one cell printed."""
    return page.evaluate(
        """(index) => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells[index].outputs
            .map(output => [output.text ?? []].flat().join("")).join("").trim()""",
        index,
    )


def ask_kernel(page: Any, expression: str) -> str:
    """The repr of an expression in the kernel, evaluated beside the notebook's cells.

    Raises:
      AssertionError: the kernel could not evaluate it.
    """
    found = page.evaluate(
        """async (expression) => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const request = { code: "", user_expressions: { value: expression }, store_history: false };
            const reply = await kernel.requestExecute(request).done;
            return reply.content.user_expressions.value;
        }""",
        expression,
    )
    assert found["status"] == "ok", found
    return found["data"]["text/plain"]
