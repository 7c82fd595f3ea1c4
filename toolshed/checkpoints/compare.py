"""Whether a checkpoint fits a state, and what two of them have in common; in words, too."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from toolshed import paths
from toolshed.checkpoints.environment import is_x64
from toolshed.checkpoints.structure import DTYPES, Kind
from toolshed.errors import CheckpointError

Rename = Mapping[str, str | None] | Callable[[str], str | None]

_DOUBLE = ("int64", "uint64", "float64", "complex128")
_SHOWN = 8  # leaves of one group that a text lists


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """Two sets of leaves side by side.

    Attributes:
      same: paths that are on both sides with one dtype and shape, and with equal values where both are
        known.
      changed: paths that are on both sides with one dtype and shape, but with other values.
      different: paths with another dtype or shape, and what is on each side.
      only_first: paths that the second does not have, and what is there.
      only_second: paths that the first does not have.
      names: what the two sides are called.
    """

    same: tuple[str, ...]
    changed: tuple[str, ...]
    different: tuple[tuple[str, Kind, Kind], ...]
    only_first: tuple[tuple[str, Kind], ...]
    only_second: tuple[tuple[str, Kind], ...]
    names: tuple[str, str] = ("first", "second")

    @property
    def fits(self) -> bool:
        """True if both have the same leaves, whatever their values."""
        return not (self.different or self.only_first or self.only_second)

    @property
    def differing(self) -> list[str]:
        """Paths that differ in more than their values."""
        return [row[0] for row in (*self.different, *self.only_first, *self.only_second)]

    def lines(self) -> list[str]:
        """The differences in words, grouped, a bounded number of them."""
        first, second = self.names
        different = [(path, f"{first} {a}, {second} {b}") for path, a, b in self.different]
        return [
            *_group(f"other in dtype or shape ({len(self.different)}):", different),
            *_group(f"only {first} ({len(self.only_first)}):", self.only_first),
            *_group(f"only {second} ({len(self.only_second)}):", self.only_second),
            *_group(f"other in value ({len(self.changed)}):", [(path, "") for path in self.changed]),
        ]

    def __repr__(self) -> str:
        lines = "".join(f"\n  {line}" for line in self.lines())
        return (
            f"Comparison of {self.names[0]} and {self.names[1]}: {len(self.same)} leaves are the same{lines}"
        )


def compare(
    first: Mapping[str, Kind],
    second: Mapping[str, Kind],
    *,
    changed: Callable[[str], bool] = lambda path: False,
    names: tuple[str, str] = ("first", "second"),
) -> Comparison:
    """Compares two sets of leaves by path.

    Args:
      first: kinds by path.
      second: likewise.
      changed: whether the values at a path, of one kind on both sides, differ.
      names: what to call the sides.
    """
    both = [path for path in first if path in second]
    alike = [path for path in both if first[path] == second[path]]
    moved = {path for path in alike if changed(path)}
    return Comparison(
        same=tuple(path for path in alike if path not in moved),
        changed=tuple(path for path in alike if path in moved),
        different=tuple((path, first[path], second[path]) for path in both if first[path] != second[path]),
        only_first=tuple((path, kind) for path, kind in first.items() if path not in second),
        only_second=tuple((path, kind) for path, kind in second.items() if path not in first),
        names=names,
    )


def _group(title: str, rows: Iterable[tuple[str, Any]]) -> list[str]:
    """The rows under a title; those of the optimiser that follow a parameter's are counted beside it."""
    rows = [(path, str(text)) for path, text in rows]
    if not rows:
        return []
    followers: Counter[str] = Counter()
    named = {(path.removeprefix("params/"), text) for path, text in rows if path.startswith("params/")}
    shown = []
    for path, text in rows:
        parameter = _parameter_of(path, text, named)
        if parameter is None:
            shown.append((path, text))
        else:
            followers[f"params/{parameter}"] += 1
    lines = [
        f"  {path}{': ' * bool(text)}{text}"
        + (f" (and {followers[path]} of the optimiser)" if followers[path] else "")
        for path, text in shown[:_SHOWN]
    ]
    more = len(shown) - _SHOWN
    return [title, *lines, *([f"  and {more} more"] if more > 0 else [])]


def _parameter_of(path: str, text: str, named: set[tuple[str, str]]) -> str | None:
    """The parameter among ``named`` whose moment in the optimiser's state this is."""
    if not path.startswith("opt_state/"):
        return None
    rest = path
    while "/" in rest:
        rest = rest.split("/", 1)[1]
        if (rest, text) in named:
            return rest
    return None


# --- renaming ---------------------------------------------------------------------------------------


def rename(paths_: Iterable[str], rule: Rename | None) -> dict[str, str]:
    """Saved paths by the paths that they are to be loaded into; those that a rule drops are left out.

    Args:
      paths_: the saved paths.
      rule: a function of a saved path that gives the new one or None; or a dict of parts of paths by what
        replaces them, ``{"encoder": "backbone"}``, which holds for parameters and for their moments in
        the optimiser's state. A part ends where a segment of the path ends.

    Raises:
      CheckpointError: two paths become one, or a part is in no path.
    """
    if rule is None:
        return {path: path for path in paths_}
    change = rule if callable(rule) else _by_parts(paths_ := list(paths_), rule)
    found: dict[str, str] = {}
    for old in paths_:
        new = change(old)
        if new is None:
            continue
        if not isinstance(new, str):
            raise CheckpointError(f"rename gave {paths.describe(new)} for {old!r}; expected a path or None.")
        if new in found:
            raise CheckpointError(f"rename makes both {found[new]!r} and {old!r} into {new!r}.")
        found[new] = old
    return found


def _by_parts(saved: list[str], rule: Any) -> Callable[[str], str | None]:
    if not isinstance(rule, Mapping) or not all(isinstance(part, str) and part for part in rule):
        raise CheckpointError(f"rename is {paths.describe(rule)}; expected a dict of paths, or a function.")
    parts = sorted(rule, key=len, reverse=True)
    found = {part: re.compile(rf"(?:(?<=[/.])|^){re.escape(part)}(?=[/.]|$)") for part in parts}
    for part, pattern in found.items():
        if not any(map(pattern.search, saved)):
            near = paths.nearest(part, saved, n=1)
            hint = f" The nearest is {near[0]!r}." if near else ""
            raise CheckpointError(f"rename has {part!r}, which is in no saved path.{hint}")

    def change(path: str) -> str | None:
        for part, pattern in found.items():
            if match := pattern.search(path):
                new = rule[part]
                return None if new is None else f"{path[: match.start()]}{new}{path[match.end() :]}"
        return path

    return change


# --- advice -----------------------------------------------------------------------------------------


def advise(comparison: Comparison, optimizers: tuple[str, str]) -> str:
    """The likely cause of a mismatch, and what to do. The first side is the saved one."""
    sections = {path.split("/", 1)[0] for path in comparison.differing}
    by_dtype = [(a, b) for _, a, b in comparison.different if a.shape == b.shape]
    if by_dtype and len(by_dtype) == len(comparison.differing):
        return _advise_on_dtypes(by_dtype)
    if sections == {"opt_state"}:
        saved, now = optimizers
        words = f"It was saved with the optimizer {saved}; this state has {now}. " if saved != now else ""
        return f"{words}Give the state the same optimizer, or pass partial=True to begin with a fresh one."
    if sections <= {"metrics", "loss_fn_state"}:
        what = " and ".join(sorted(sections)) + (" differs" if len(sections) == 1 else " differ")
        return f"Only {what}: build `like` with the same, or pass partial=True to restore the rest."
    suggestion = _suggest_rename(comparison)
    if suggestion:
        return (
            "The same shapes are there under other names: the model was probably renamed or built in another"
            f" way. {suggestion}"
        )
    if not comparison.different and "frozen" in sections and "params" in sections:
        return (
            "Probably other parameters are frozen than when it was saved. Freeze the same ones, or pass"
            " partial=True to restore what fits."
        )
    return (
        "The model was probably built with other sizes or layers. Build it as it was, or pass partial=True to"
        " restore what fits and keep the rest of `like`."
    )


def _advise_on_dtypes(pairs: list[tuple[Kind, Kind]]) -> str:
    if any("key<" in kind.dtype for pair in pairs for kind in pair):
        return (
            "The random keys are of another kind; make the state's key with"
            f" jax.random.key(seed, impl={pairs[0][0].dtype.removeprefix('key<').removesuffix('>')!r})."
        )
    wide = any(DTYPES[a.dtype].itemsize > DTYPES[b.dtype].itemsize for a, b in pairs)
    if wide and not is_x64() and any(a.dtype in _DOUBLE for a, _ in pairs):
        return (
            "It was saved with jax_enable_x64, which is off here: turn it on, or pass cast=True to load it in"
            " single precision."
        )
    return "It was saved in another precision: pass cast=True to convert it."


def _suggest_rename(comparison: Comparison) -> str | None:
    """A rename that makes all names fit, if there is one; where shapes alone agree, a word on rename."""
    if comparison.different:
        return None
    first = [(path, kind) for path, kind in comparison.only_first if path.startswith("params/")]
    second = [(path, kind) for path, kind in comparison.only_second if path.startswith("params/")]
    if not first or Counter(kind for _, kind in first) != Counter(kind for _, kind in second):
        return None
    old, new = first[0][0].split("/"), second[0][0].split("/")
    while len(old) > 1 and len(new) > 1 and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    while len(old) > 1 and len(new) > 1 and old[0] == new[0]:
        old, new = old[1:], new[1:]
    rule = {"/".join(old): "/".join(new)}
    try:
        renamed = rename([path for path, _ in comparison.only_first], rule)
    except CheckpointError:
        renamed = {}
    if renamed.keys() == {path for path, _ in comparison.only_second}:
        return f"Pass rename={rule!r}."
    return "Pass rename={'old part': 'new part'}."
