"""Where a run is looked at: by a person at a notebook, or by nobody."""

from __future__ import annotations

import os
import sys


def in_kernel() -> bool:
    """Whether this is the kernel of a notebook, of whatever front end."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def is_watched() -> bool:
    """Whether a person sits at this kernel, who can use other cells while a run trains in the background.

    A kernel cannot ask. Jupyter's server, VS Code and Colab leave signs in its environment; nbconvert,
    papermill and a plain terminal leave none. There a run that went on in the background would end with
    the last cell, with nothing done.
    """
    signs = ("JPY_SESSION_NAME", "VSCODE_PID", "VSCODE_CWD", "COLAB_RELEASE_TAG")
    return in_kernel() and any(os.environ.get(sign) for sign in signs)
