"""The timeline: where a run has been, and from what it can be made again.

A branch holds the steps after its start. Snapshots are whole states that lie on the device; between two
of them every state follows exactly from the earlier one, the batches and the edits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from toolshed.errors import RunError
from toolshed.keys import is_key
from toolshed.state import TrainState


class Edit(NamedTuple):
    """Values that were set at a step.

    Attributes:
      step: number of steps done then.
      values: by the name of the hyperparameter.
    """

    step: int
    values: dict[str, float]


class Snapshot(NamedTuple):
    """A whole state, from which the steps after it can be made again.

    Attributes:
      step: number of steps done.
      state: the state, in memory that no step uses; on the host where the device's share was used up.
      position: where the data was.
      edits: how many of the branch's edits are in it.
      pinned: whether it must stay: nothing else leads to what comes after it.
      nbytes: its size.
      shardings: where its leaves were before it was moved to the host's memory; None if it was not.
      given: whether a watch gave the state, so that nothing else leads to what comes after it. It stays as
        long as there is room.
    """

    step: int
    state: TrainState
    position: Any
    edits: int
    pinned: bool
    nbytes: int
    shardings: tuple[Any, ...] | None = None
    given: bool = False

    @property
    def on_host(self) -> bool:
        """Whether it is in the host's memory."""
        return self.shardings is not None

    @property
    def on_device(self) -> TrainState:
        """The state with its arrays where they were when they were made."""
        if self.shardings is None:
            return self.state
        leaves, structure = jax.tree.flatten(self.state)
        placed = [
            leaf if where is None else jax.device_put(leaf, where or None)
            for leaf, where in zip(leaves, self.shardings, strict=True)
        ]
        return jax.tree.unflatten(structure, placed)

    def moved(self) -> Snapshot:
        """The same in the host's memory. Waits for the device."""
        leaves, structure = jax.tree.flatten(self.state)
        arrays = [isinstance(leaf, jax.Array) and not is_key(leaf) for leaf in leaves]
        # False stands for wherever jax puts an array by itself
        shardings = tuple(
            (leaf.committed and leaf.sharding) if is_array else None
            for leaf, is_array in zip(leaves, arrays, strict=True)
        )
        host = [
            jax.device_get(leaf) if is_array else leaf for leaf, is_array in zip(leaves, arrays, strict=True)
        ]
        return self._replace(state=jax.tree.unflatten(structure, host), shardings=shardings)


class Kept:
    """A snapshot that lies on the disk, as a checkpoint: the state is loaded when it is needed.

    Args:
      step: number of steps done.
      position: where the data was.
      edits: how many of the branch's edits are in it.
      load: loads the state.
    """

    pinned, given, nbytes, on_host = True, False, 0, True

    def __init__(self, step: int, position: Any, edits: int, load: Callable[[], TrainState]):
        self.step, self.position, self.edits = step, position, edits
        self._load = load

    @property
    def state(self) -> TrainState:
        """The state. Reads the disk."""
        return self._load()

    on_device = state


@dataclasses.dataclass
class Segment:
    """The part of a timeline that one branch added.

    Attributes:
      name: of the branch.
      parent: the branch that it left, or None.
      start: the step at which it left it.
      head: the last step made on it.
      edits: in the order in which they were made.
      snapshots: in the order of their steps; the first is that of the start.
      again: edits that were made at later steps before the run was attached to again. Each is made again
        at its step, unless somebody makes another one before.
      lost: steps at which a watch gave a state whose snapshot there was no room for.
    """

    name: str
    parent: str | None
    start: int
    head: int
    edits: list[Edit]
    snapshots: list[Snapshot | Kept]
    again: list[Edit] = dataclasses.field(default_factory=list)
    lost: list[int] = dataclasses.field(default_factory=list)


class Timeline:
    """Branches, edits and snapshots of a run. Changed by the run's own thread alone.

    Args:
      first: the snapshot that it begins with.
      device_budget: bytes that snapshots may take on the device.
      host_budget: bytes that those moved to the host may take. None are moved where the device is the
        host's own CPU, for it would save nothing; the older of them are thinned out at once.

    Snapshots are thinned out so that they lie the denser the newer they are. Those that a watch gave go
    last, the oldest first; those that are pinned stay, whatever the budgets.
    """

    def __init__(self, first: Snapshot, *, device_budget: int, host_budget: int):
        self.device_budget = device_budget
        self.host_budget = 0 if _is_on_cpu(first.state) else host_budget
        self.current = "main"
        self.segments = {"main": Segment("main", None, first.step, first.step, [], [first])}

    @property
    def here(self) -> Segment:
        """The current branch."""
        return self.segments[self.current]

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots, wherever they lie."""
        return sum(snapshot.nbytes for snapshot in self._everything())

    @property
    def budget(self) -> int:
        """Bytes that all snapshots may take."""
        return self.device_budget + self.host_budget

    @property
    def device_bytes(self) -> int:
        """Bytes of the snapshots on the device."""
        return sum(snapshot.nbytes for snapshot in self._everything() if not snapshot.on_host)

    def _everything(self) -> list[Snapshot | Kept]:
        """All snapshots. Any thread may ask: what is iterated here is not what the run changes."""
        return [snapshot for part in tuple(self.segments.values()) for snapshot in tuple(part.snapshots)]

    def add(
        self, state: TrainState, step: int, position: Any, *, pinned: bool = False, given: bool = False
    ) -> None:
        """Keeps a state of the current branch, in memory that is the timeline's own from now on."""
        here, anew = self.here, pinned or given
        if not anew and any(old.step == step and old.edits == len(here.edits) for old in here.snapshots):
            return
        new = Snapshot(step, state, position, len(here.edits), pinned, size_of(state), given=given)
        kept = [old for old in here.snapshots if old.step != step or (_stays(old) and not anew)]
        here.snapshots = sorted([*kept, new], key=lambda snapshot: (snapshot.step, snapshot.edits))
        self._thin()

    def begin(self, name: str, first: Snapshot) -> None:
        """Begins a branch where the run is, and makes it the current one."""
        self.segments[name] = Segment(name, self.current, first.step, first.step, [], [first])
        self.current = name

    def owner(self, step: int, branch: str | None = None) -> Segment:
        """The branch, of the line that leads to ``branch``, on which a step was made.

        Raises:
          RunError: no such branch, or no such step on its line.
        """
        part = self._segment(branch or self.current)
        if step > part.head:
            elsewhere = [other.name for other in self.segments.values() if step <= other.head]
            hint = (
                f"It is on {', '.join(elsewhere)}: run.goto({step}, {elsewhere[0]!r})."
                if elsewhere
                else "run.train(steps) goes on from there."
            )
            raise RunError(
                f"Step {step:,} has not been made on the branch {part.name!r}, which ends at step"
                f" {part.head:,}. {hint}"
            )
        while step < part.start and part.parent is not None:
            part = self.segments[part.parent]
        if step < part.start:
            raise RunError(f"This run begins at step {part.start:,}; there is no step {step:,} in it.")
        return part

    def nearest(self, part: Segment, step: int) -> Snapshot | Kept:
        """The last snapshot of a branch that is not after a step.

        Raises:
          RunError: the step does not follow from it, or there is none, as may be where a run was attached
            to.
        """
        snapshot = self.newest(part, step)
        lost = self.lost_between(part, snapshot, step)
        if lost is not None:
            raise RunError(
                f"Step {step:,} cannot be made again: a watch gave another state at step {lost:,}, and its"
                f" snapshot was dropped to keep all of them within {self.budget / 1e6:,.0f} MB. Make the run"
                " with a larger snapshot_bytes to keep more."
            )
        return snapshot

    def newest(self, part: Segment, step: int) -> Snapshot | Kept:
        """The last snapshot of a branch that is not after a step, whether the step follows from it or not.

        Raises:
          RunError: there is none.
        """
        before = [snapshot for snapshot in part.snapshots if snapshot.step <= step]
        if not before:
            raise RunError(
                f"Step {step:,} of {part.name} cannot be made again: no state from before it was kept."
            )
        return before[-1]

    def lost_between(self, part: Segment, snapshot: Snapshot | Kept, step: int) -> int | None:
        """The last step after a snapshot and up to another step that cannot be made again, or None."""
        return max((at for at in part.lost if snapshot.step < at <= step), default=None)

    def free_name(self, stem: str) -> str:
        """A branch name that is not taken: ``main-2`` after ``main``."""
        stem = stem.rsplit("-", 1)[0] if stem.rsplit("-", 1)[-1].isdigit() else stem
        number = 2
        while f"{stem}-{number}" in self.segments:
            number += 1
        return f"{stem}-{number}"

    def _segment(self, name: str) -> Segment:
        if name not in self.segments:
            raise RunError(f"There is no branch {name!r}; there are {', '.join(self.segments)}.")
        return self.segments[name]

    def _thin(self) -> None:
        """Brings the snapshots within the budgets: older ones to the host, then fewer of them."""
        while self.device_bytes > self.device_budget and self._move_one():
            pass
        on_host = self.nbytes - self.device_bytes
        while self.device_bytes > self.device_budget or on_host > self.host_budget:
            if not self._drop_one():
                break
            on_host = self.nbytes - self.device_bytes

    def _move_one(self) -> bool:
        """Moves the oldest snapshot that is on a device of its own to the host."""
        for part in self.segments.values():
            newest = part.snapshots[-1] if part is self.here and part.snapshots else None
            for number, snapshot in enumerate(part.snapshots):
                if snapshot is newest or not isinstance(snapshot, Snapshot) or snapshot.on_host:
                    continue
                if not _is_on_cpu(snapshot.state):
                    part.snapshots[number] = snapshot.moved()
                    return True
        return False

    def _drop_one(self) -> bool:
        """Drops the snapshot that is missed least: little is between its neighbours, and it is old."""
        candidates = []
        for part in self.segments.values():
            newest = part.snapshots[-1].step if part.snapshots else 0
            for number in range(1, len(part.snapshots) - 1):
                if not _stays(part.snapshots[number]):
                    gap = part.snapshots[number + 1].step - part.snapshots[number - 1].step
                    age = newest - part.snapshots[number].step + 1
                    candidates.append((gap / age, part, number))
        if not candidates:
            return self._drop_given()
        _, part, number = min(candidates, key=lambda candidate: candidate[0])
        del part.snapshots[number]
        return True

    def _drop_given(self) -> bool:
        """Drops the oldest snapshot that a watch gave, and writes down what is lost with it."""
        given = [
            (snapshot.step, part, snapshot)
            for part in self.segments.values()
            for snapshot in part.snapshots[1:-1]
            if snapshot.given and not snapshot.pinned
        ]
        if not given:
            return False
        step, part, oldest = min(given, key=lambda entry: entry[0])
        part.snapshots = [snapshot for snapshot in part.snapshots if snapshot is not oldest]
        part.lost.append(step)
        return True

    def __repr__(self) -> str:
        lines = []
        for part in tuple(self.segments.values()):
            origin = f"from {part.parent} at step {part.start:,}" if part.parent else f"from {part.start:,}"
            mark = "→" if part.name == self.current else " "
            kept = ", ".join(f"{snapshot.step:,}" for snapshot in part.snapshots[-6:])
            more = f"… {kept}" if len(part.snapshots) > 6 else kept
            lines.append(
                f"{mark} {part.name}: {origin} to {part.head:,}; {len(part.edits)} edits; snapshots at {more}"
            )
        total = f"{self.nbytes / 1e6:,.1f} of {self.budget / 1e6:,.0f} MB"
        return "\n".join(["Timeline", *lines, f"  snapshots take {total}"])


def size_of(state: TrainState) -> int:
    """Bytes of what a step changes in a state."""
    metrics = None if state.metrics is None else state.metrics.states
    changing = (state.params, state.opt_state, state.model_state, state.loss_fn_state, metrics)
    return sum(leaf.nbytes for leaf in jax.tree.leaves(changing) if hasattr(leaf, "nbytes"))


def _stays(snapshot: Snapshot | Kept) -> bool:
    """Whether nothing else leads to what comes after it."""
    return snapshot.pinned or snapshot.given


def _is_on_cpu(state: TrainState) -> bool:
    return all(device.platform == "cpu" for device in state.step.devices())
