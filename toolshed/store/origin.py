"""Where a run comes from: the version of the code, the machine, the versions of packages."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolshed.checkpoints import environment

_PATIENCE = 5.0  # seconds that git may take


def code_version(folder: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The git commit of a directory, and whether files differ from it. Empty where git knows nothing.

    Args:
      folder: by default the present one. Waits for git.
    """
    where = Path.cwd() if folder is None else Path(folder)
    commit = _git(where, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(where, "status", "--porcelain", "--untracked-files=no")
    found: dict[str, Any] = {"commit": commit, "dirty": None if changed is None else bool(changed)}
    branch = _git(where, "rev-parse", "--abbrev-ref", "HEAD")
    return {**found, "branch": branch} if branch else found


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def machine(shardings: Iterable[Any]) -> dict[str, Any]:
    """Versions, devices, host and program, as JSON can hold them.

    Args:
      shardings: of a state's arrays; they tell the devices.
    """
    return {
        **environment.describe(shardings),
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": socket.gethostname(),
        "program": os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "",
    }
