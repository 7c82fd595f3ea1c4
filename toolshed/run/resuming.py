"""Resuming: a new run gets the past of one that was kept: values, events, branches, and the way back."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolshed.checkpoints import Manifest, Repository
from toolshed.checkpoints.catalogue import Catalogue
from toolshed.checkpoints.layout import Layout
from toolshed.checkpoints.lock import Lock
from toolshed.errors import StoreError
from toolshed.run.cursor import Cursor
from toolshed.run.durable import Durable
from toolshed.run.run import Run
from toolshed.run.saved import events_of, history_of
from toolshed.run.saves import Every, Place
from toolshed.run.timeline import Edit, Kept, Segment, Snapshot
from toolshed.state import TrainState
from toolshed.store import Record, Store, folders
from toolshed.store.folders import DATABASE
from toolshed.store.reading import Content


def resume(run: Run, folder: Path, lock: Lock, content: Content, place: Place | None, every: Every) -> None:
    """Gives a new run the past of the one that was kept, and has it go on being kept.

    What came after its step is taken out, for it will be made again: values, and edits of hyperparameters.

    Args:
      run: at the state and the place in the data where it goes on.
      folder: the directory of the one that was kept.
      lock: on it.
      content: what was written there.
      place: where it was when the state was saved; None at the very beginning.
      every: steps or time between two checkpoints.

    Raises:
      StoreError: what was written does not fit together.
    """
    engine, step = run._engine, run._engine.step
    place = place or Place(engine.feed.position, "main", 0, 0.0, engine.window)
    edits = {line.name: _edits(content, line.name) for line in content.lines}
    if place.branch not in edits:
        raise StoreError(f"The branch {place.branch!r} of the newest checkpoint is not in {folder.name}.")
    done = edits[place.branch][: place.edits]
    history = history_of(content, branch=place.branch, until=step)
    records = _records(content.events, place.branch, sum(len(edit.values) for edit in done))
    _cut_store(folder / DATABASE, content, place.branch, step, records)
    run._publisher.history, run._publisher.listeners.kept = history, events_of(records)
    engine.clock.elapsed = place.elapsed
    _lay_out(run, Repository(folder / folders.CHECKPOINTS), content, place, edits)
    engine.read_hyperparameters()
    durable = Durable(
        run.name,
        engine,
        run._control,
        folder,
        dict_in(content.facts, "config"),
        every,
        lock=lock,
        cursor=Cursor(history, len(records)),
        origin={name: content.facts.get(name) for name in ("created", "code", "environment")},
    )
    durable.saves.restored(step, place.branch, len(done))
    run._keep(durable)
    _say_where(run, content, place.branch)


def dict_in(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A dict among facts; empty where it is none."""
    found = facts.get(name)
    return dict(found) if isinstance(found, Mapping) else {}


def _edits(content: Content, branch: str) -> list[Edit]:
    found = dict_in(content.facts, "edits").get(branch, [])
    try:
        return [Edit(int(step), {str(k): float(v) for k, v in values.items()}) for step, values in found]
    except (TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"The edits of this run are not as they were written: {error}.") from None


def _records(records: Iterable[Record], branch: str, edited: int) -> list[Record]:
    """All events but those of edits that will be made again."""
    kept = []
    for record in records:
        if record.kind == "edited" and record.branch == branch:
            if edited <= 0:
                continue
            edited -= 1
        kept.append(record)
    return kept


def _cut_store(path: Path, content: Content, branch: str, step: int, records: Sequence[Record]) -> None:
    """Takes values after a step, and the events that do not stay, out of the file."""
    left = []
    for block in content.blocks:
        if block.branch == branch and int(block.steps[0]) <= step < int(block.steps[-1]):
            keep = block.steps <= step
            left.append(block._replace(steps=block.steps[keep], values=block.values[keep]))
    store = Store(path)
    try:
        store.cut(branch, step, left, records)
    finally:
        store.close()


def _lay_out(
    run: Run, repository: Repository, content: Content, place: Place, edits: Mapping[str, list[Edit]]
) -> None:
    """The timeline: all branches, with the checkpoints that there are as snapshots."""
    engine, timeline = run._engine, run._engine.timeline
    first = timeline.here.snapshots[0]
    assert isinstance(first, Snapshot)
    first = first._replace(edits=place.edits)
    kept = _on_disk(repository, first.state)
    heads = _heads(content)
    began = content.facts.get("began")
    for line in content.lines:
        start = line.start if line.parent is not None else began if isinstance(began, int) else 0
        head = heads.get(line.name, start)
        part = Segment(line.name, line.parent, start, head, edits[line.name], [])
        if line.name == place.branch:
            part.head = engine.step
            part.edits, part.again = part.edits[: place.edits], part.edits[place.edits :]
            part.snapshots.append(first)
        there = [snapshot for branch, snapshot in kept if branch == line.name and snapshot.step <= part.head]
        part.snapshots = sorted([*part.snapshots, *there], key=lambda one: (one.step, one.edits))
        timeline.segments[line.name] = part
    timeline.current = place.branch


def _heads(content: Content) -> dict[str, int]:
    """The last step of each branch that has a loss."""
    heads: dict[str, int] = {}
    for block in content.blocks:
        if block.name == "train/loss":
            heads[block.branch] = max(heads.get(block.branch, 0), int(block.steps[-1]))
    return heads


def _on_disk(repository: Repository, like: TrainState) -> list[tuple[str, Kept]]:
    """The checkpoints that a run made, each with its branch."""
    found = []
    for manifest in Catalogue(Layout(repository.path), None).list().whole:  # what is damaged was said already
        try:
            place = Place(**manifest.data_state)
        except TypeError:
            continue  # somebody else's
        load = functools.partial(_load, repository, manifest, like)
        found.append((place.branch, Kept(manifest.step, place.data, place.edits, load)))
    return found


def _load(repository: Repository, manifest: Manifest, like: TrainState) -> TrainState:
    return repository.restore(manifest, like=like).state


def _say_where(run: Run, content: Content, branch: str) -> None:
    """Sets status and goal to what they were, and says from where it goes on."""
    step, goal = run._engine.step, content.facts.get("goal")
    last = max((int(block.steps[-1]) for block in content.blocks if block.branch == branch), default=step)
    words = f"goes on from the checkpoint of step {step:,}"
    if last > step:
        words += f"; the {last - step:,} steps after it are made again"
    if last < step:
        words += f"; the values of the {step - last:,} steps before it could not be written"
    run._engine.tell("note", words)
    open_end = isinstance(goal, int) and goal > step and not content.facts.get("conditions")
    run._control.goal = goal if open_end else None
    run._control.say("paused" if open_end else "ready", words)
