"""Runs a notebook in a kernel of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config


def execute(notebook: NotebookNode, folder: Path, **options: Any) -> None:
    """Fills in the outputs of a notebook.

    The kernel's sockets are files: a port is looked for before the kernel begins, and until the kernel
    binds it somebody else may.

    Args:
      notebook: is changed.
      folder: that it runs in.
      **options: for the start of the kernel: ``env``.
    """
    resources = {"metadata": {"path": str(folder)}}
    with tempfile.TemporaryDirectory() as sockets:
        config = Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        NotebookClient(notebook, timeout=300, resources=resources, config=config).execute(**options)
