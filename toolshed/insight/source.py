"""Which line of whose code an operation comes from.

jax notes for each equation the stack of calls that led to it. This is the one place that reads the note,
with a part of jax that is not public; where that part changes, no line is found and all else still works.
"""

from __future__ import annotations

import functools
import linecache
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# Frameworks whose frames say nothing to the person who asks: their callers' do.
_FRAMEWORKS = re.compile(
    r"[/\\](jax|jaxlib|penzai|treescope|optax|flax|equinox|haiku|chex|jaxtyping|beartype|keras|numpy|orbax|grain"
    r"|diffrax|lineax|optimistix|distrax|IPython|ipykernel|_pytest|pluggy)[/\\]"
)
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
_OWN = str(Path(__file__).parents[1])
_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})
_TRACED_BY = str(Path(__file__).with_name("subject.py"))


class Source(NamedTuple):
    """A line of code.

    Attributes:
      file: its file, as Python names it.
      line: its number, from 1.
      function: the function it is in.
      text: the line itself; empty if the file cannot be read.
    """

    file: str
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        name = Path(self.file).name if not self.file.startswith("<") else self.file
        return f"{name}:{self.line} in {self.function}"


def source_of(trail: Sequence[Any]) -> Source | None:
    """The line that a person wrote and that led to an equation.

    That is the innermost line outside of the frameworks; if there is none, the innermost of a framework
    that is not jax, such as an optimiser's.

    Args:
      trail: the equation and those that called it, the innermost first.
    """
    for rank in (_is_theirs, _is_installed, _is_framework):
        for eqn in trail:
            for frame in _frames(eqn):
                if rank(frame.file):
                    return frame._replace(text=linecache.getline(frame.file, frame.line).strip())
    return None


def _frames(eqn: Any) -> Iterator[Source]:
    """The calls that led to an equation, innermost first, as far as the function that was traced."""
    try:
        frames = eqn.source_info.traceback.frames
    except AttributeError:  # jax keeps no traceback, or keeps it elsewhere
        return
    for frame in frames:
        if frame.file_name == _TRACED_BY:
            return
        line = getattr(frame, "start_line", None) or getattr(frame, "line_num", 0)
        function = str(frame.function_name).rsplit(".", 1)[-1]
        yield Source(frame.file_name, int(line), function, "")


@functools.lru_cache(maxsize=4096)
def _kind(file: str) -> str:
    if file.startswith(("<frozen", "<@", "<__")) or file.startswith(_OWN):
        return "own"
    if _INSTALLED.search(file):
        if not _FRAMEWORKS.search(file):
            return "installed"
        return "jax" if re.search(r"-packages[/\\](jax|jaxlib)[/\\]", file) else "framework"
    return "own" if file.startswith(_STANDARD) else "theirs"


def _is_theirs(file: str) -> bool:
    return _kind(file) == "theirs"


def _is_installed(file: str) -> bool:
    return _kind(file) == "installed"


def _is_framework(file: str) -> bool:
    return _kind(file) == "framework"


OPTIMIZER = "optimizer update"
"""The scope in which an optimiser's update is traced, to tell it from the rest of a step."""


def is_transposed(scope: str) -> bool:
    """True for an operation on the way back, by the scopes around it."""
    return "transpose(" in scope


def plain_scope(scope: str) -> str:
    """The names of the scopes without jax's marks: ``encoder/0`` for ``transpose(jvp(encoder))/0``."""
    names = re.sub(r"\b(transpose|jvp|vmap|vjp|jit|pjit|checkpoint)\(", "(", scope)
    names = re.sub(r"[()]", "", names).replace("rematted_computation", "").replace(OPTIMIZER, "")
    return "/".join(part for part in names.split("/") if part)
