"""Repository: saved states under one directory, by step, tag or metric."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from toolshed.checkpoints import damage, labels, layout, loading, table
from toolshed.checkpoints import manifest as manifests
from toolshed.checkpoints.catalogue import Catalogue, Which
from toolshed.checkpoints.compare import Comparison, Rename
from toolshed.checkpoints.damage import Damage
from toolshed.checkpoints.layout import Entry, Layout
from toolshed.checkpoints.loading import Restored, Wishes
from toolshed.checkpoints.manifest import Manifest
from toolshed.checkpoints.retention import Best, check_rules
from toolshed.checkpoints.saving import Saving, Writer, failure, job_of, writer_of
from toolshed.checkpoints.sides import compare_sides, side_of
from toolshed.errors import CheckpointDamagedError, CheckpointError
from toolshed.state import TrainState

_VERIFIED = "verified"


class Repository:
    """Saved states under one directory, each whole or not there at all.

    A checkpoint is written aside, checksummed, brought to the disk and then renamed into its place, so a
    killed process, a full disk or a pulled plug leaves whole checkpoints alone. It has a manifest with
    step, time, tags, metadata, metrics, optimiser, position in the data, and the SHA-256 of every file.

    One process at a time may write; it is the one whose first `save` came first, until it ends or calls
    `close`. Any number may read. Saving the same step again adds a checkpoint and then removes the one
    before, unless that has a tag. In the table that a notebook shows the one written last comes first.

    It is for one process with any number of devices, on a local disk of Linux or macOS.

    Args:
      path: the directory. It is made by the first `save`.
      keep_last: how many of those written last to keep; with no ``keep_…`` everything is kept.
      keep_every: keep those whose step is a multiple of this.
      keep_best: keep those with the best metric: ``("eval/loss", "min", 2)`` for the two lowest.
      keep_tagged: keep those that have a tag.

    Raises:
      CheckpointError: the path is a file, or a rule makes no sense.

    Example:
      >>> import jax, optax, tempfile, toolshed
      >>> from penzai.models.simple_mlp import MLP
      >>> mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 8, 1])
      >>> state = toolshed.TrainState.initial_state(mlp, optax.adam(1e-3), jax.random.key(1))
      >>> repository = toolshed.checkpoints.Repository(tempfile.mkdtemp(), keep_last=3)
      >>> saving = repository.save(state, tags=["first"], metrics={"eval/loss": 0.5})
      >>> saving.wait().step
      0
      >>> int(repository.load("first", like=state).step)
      0
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        keep_last: int | None = None,
        keep_every: int | None = None,
        keep_best: Best | tuple[Any, ...] | str | None = None,
        keep_tagged: bool = True,
    ):
        self._layout = Layout(layout.check_path(path))
        self._retention = check_rules(keep_last, keep_every, keep_best, keep_tagged)
        self._catalogue = Catalogue(self._layout, self._retention.keep_best)
        self._conditions: dict[Any, str] = {}
        self._held: Writer | None = None

    @property
    def path(self) -> Path:
        """The directory."""
        return self._layout.root

    # --- saving

    def save(
        self,
        state: TrainState,
        *,
        step: int | None = None,
        tags: str | Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        data_state: Any = None,
        wait: bool = False,
    ) -> Saving:
        """Saves a state in the background.

        The call makes a copy on the devices, or on the host where they are full, and returns; the state
        may be donated to the next step at once. On a CPU memory for the copy is kept until `close`. If
        the checkpoint before is still being written the call waits for that. A failure of the disk is
        logged and is in the `Saving`, and never raised here without ``wait``.

        Whatever loads, compares or changes checkpoints in this process waits for what is being written;
        what lists them shows what is there. At the end of a script Python waits for the last one.

        Args:
          state: the state, with everything in it: frozen parameters, keys and metric states too.
          step: the step to file it under; by default the state's own.
          tags: words to find it by.
          metadata: anything that JSON can hold.
          metrics: numbers by name; device scalars are fetched in the background.
          data_state: the position in the data, as `toolshed.data.Stream.state` gives it.
          wait: come back when it is on the disk, and raise what goes wrong.

        Raises:
          CheckpointError: an argument cannot be saved.
          RepositoryLockedError: another process writes here.
          SaveError: with ``wait``: it could not be written.
        """
        job = job_of(state, step=step, tags=tags, metadata=metadata, metrics=metrics, data_state=data_state)
        saving = self._writer.start(job, self._published, waits=wait)
        if wait:
            saving.wait()
        return saving

    @property
    def saving(self) -> Saving | None:
        """What is being written now, by any repository of this process on this directory."""
        return None if self._held is None else self._writer.saving

    def _published(self, written: Manifest) -> None:
        self._conditions[_mark(written)] = _VERIFIED
        self._retain(written)

    def _retain(self, written: Manifest) -> None:
        failures = []
        with self._writer.guard:
            for old in self._retention.discarded(self._catalogue.list().whole, written):
                try:
                    self._layout.discard(old.entry)
                except OSError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    # --- finding

    def steps(self) -> list[int]:
        """The steps that there is a whole checkpoint of, in rising order.

        Raises:
          CheckpointDamagedError: there are checkpoints, and none is whole.
        """
        return sorted({one.step for one in self._catalogue.whole()})

    @property
    def latest(self) -> Manifest | None:
        """The checkpoint written last of those that are whole; None if there are no checkpoints.

        After a rewind that is not the one with the largest step. Its files are there in their sizes; that
        they are unchanged is for `verify` and `load` to see.

        Raises:
          CheckpointDamagedError: there are checkpoints, and none is whole.
        """
        return self._catalogue.latest()

    def best(self, metric: str, mode: str = "min") -> Manifest:
        """The checkpoint with the best finite value of a metric; of equal ones the newer.

        Args:
          metric: its name, as it was saved.
          mode: ``"min"`` or ``"max"``: which is better.

        Raises:
          CheckpointNotFoundError: none has a finite value of it.
        """
        return self._catalogue.best(metric, mode)

    def find(
        self, *, tags: str | Iterable[str] = (), metadata: Mapping[str, Any] | None = None
    ) -> list[Manifest]:
        """The checkpoints with all of these tags and these entries of their metadata, the newest last."""
        return self._catalogue.find(labels.check_tags(tags), labels.check_dict("metadata", metadata))

    def manifest(self, step: Which = "latest") -> Manifest:
        """What is known of one checkpoint.

        Args:
          step: a step, ``"latest"``, ``"best"``, or a tag, of which the newest counts. ``"best"`` is the
            tag of that name where a checkpoint has it, or else what ``keep_best`` says.

        Raises:
          CheckpointNotFoundError: there is none.
          CheckpointDamagedError: it is not whole.
        """
        return self._catalogue.one(step)

    # --- loading

    def load(
        self,
        step: Which = "latest",
        *,
        like: TrainState,
        shardings: Any = None,
        partial: bool = False,
        cast: bool = False,
        rename: Rename | None = None,
    ) -> TrainState:
        """The state that was saved, bit for bit.

        All files are checked against their SHA-256 first, and all values after. ``"latest"`` steps over
        what is damaged, and says so. A warning says what a partial restore left out, and if versions or
        devices are others than when it was saved: training then does not go on bit for bit.

        Args:
          step: a step, ``"latest"``, ``"best"``, a tag or a manifest; see `manifest`.
          like: a freshly made state with the same model and optimiser. It gives structure, skeleton and
            devices; its values do not matter, unless ``partial``.
          shardings: where to put the arrays: one `jax.sharding.Sharding` for all arrays of ``params``,
            ``opt_state`` and ``model_state`` that it divides, the others on all its devices; or a
            TrainState with a sharding for each leaf. None for where those of ``like`` are.
          partial: restore what fits, and keep the rest as it is in ``like``.
          cast: convert values to the precision of ``like``.
          rename: for a model with other names: a dict of parts of saved paths by what they are now, as in
            ``{"encoder": "backbone"}``, None for what is to be dropped; or a function of a saved path.

        Raises:
          CheckpointNotFoundError: there is no such checkpoint.
          CheckpointDamagedError: it is damaged; for ``"latest"``, there are some, and all are.
          CheckpointMismatchError: it does not fit; each differing leaf is named, on both sides.
        """
        found = self.restore(step, like=like, shardings=shardings, partial=partial, cast=cast, rename=rename)
        loading.warn_about(found, like)
        return found.state

    def restore(
        self,
        step: Which = "latest",
        *,
        like: TrainState,
        shardings: Any = None,
        partial: bool = False,
        cast: bool = False,
        rename: Rename | None = None,
    ) -> Restored:
        """As `load`, with the manifest, and what was restored, kept and dropped, instead of warnings."""
        self._writer.wait()
        restored = loading.load(self._catalogue, step, Wishes(like, shardings, partial, cast, rename))
        self._conditions[_mark(restored.manifest)] = _VERIFIED
        return restored

    def compare(self, first: Which | TrainState, second: Which | TrainState) -> Comparison:
        """Two checkpoints, or a checkpoint and a state, leaf by leaf; loads no arrays.

        Values are compared by their SHA-256; for a state that waits for the device.
        """
        self._writer.wait()
        one, other = (
            side_of(of if isinstance(of, TrainState) else self.manifest(of)) for of in (first, second)
        )
        return compare_sides(one, other)

    # --- changing

    def tag(self, step: Which, *tags: str) -> Manifest:
        """Adds tags to a checkpoint.

        Raises:
          CheckpointNotFoundError: there is no such checkpoint.
          RepositoryLockedError: another process writes here.
        """
        return self._retag(step, lambda old: (*old, *labels.check_tags(tags)))

    def untag(self, step: Which, *tags: str) -> Manifest:
        """Takes tags off a checkpoint; what it has not is no error. The other arguments as in `tag`."""
        gone = labels.check_tags(tags)
        return self._retag(step, lambda old: tuple(tag for tag in old if tag not in gone))

    def _retag(self, step: Which, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Manifest:
        with self._changing():
            old = self.manifest(step)
            new = dataclasses.replace(old, tags=labels.check_tags(change(old.tags)))
            self._layout.replace_file(old.folder / layout.MANIFEST, manifests.to_json(new))
            return new

    def delete(self, step: Which) -> None:
        """Deletes a checkpoint: for a step all that was saved of it, damaged or not, tagged or not.

        Raises:
          CheckpointNotFoundError: there is no such checkpoint.
          RepositoryLockedError: another process writes here.
        """
        with self._changing():
            entries = []
            if not isinstance(step, (str, Manifest)):
                number = layout.check_step(step)
                entries = [entry for entry in self._layout.entries() if entry.step == number]
            for entry in entries or [self.manifest(step).entry]:
                self._layout.discard(entry)

    def verify(self, step: Which | None = None) -> tuple[Damage, ...]:
        """Reads all files of one checkpoint, or of all, to see that they are as they were written.

        Returns:
          What is not: nothing, if all is well.
        """
        listing = self._catalogue.list()
        whole, broken = listing.whole, list(listing.broken)
        if step is not None:
            try:
                whole, broken = (self.manifest(step),), []
            except CheckpointDamagedError as error:
                return (Damage(str(step), step if isinstance(step, int) else None, str(error)),)
        for found in whole:
            error = damage.error_of(found)
            self._conditions[_mark(found)] = str(error or _VERIFIED)
            if error and found.entry.is_there():
                broken.append((found.entry, error))
        damages = [Damage(entry.name, entry.step, str(error)) for entry, error in sorted(broken, key=_order)]
        strangers = self._layout.strangers() if step is None else []
        return (*damages, *(Damage(name, None, f"{name!r} is no checkpoint.") for name in strangers))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds off whoever else would change what is listed."""
        writer = self._writer
        writer.wait()
        try:
            writer.acquire()
            with writer.guard:
                yield
        except OSError as error:
            raise failure(f"{self.path} was not changed", error) from error

    @property
    def _writer(self) -> Writer:
        """The one writer of this process for this directory."""
        if self._held is None or self._held.pid != os.getpid():
            self._held = writer_of(self._layout)
        return self._held

    def close(self) -> None:
        """Waits for what is being written, and lets other processes write. A later save takes that back."""
        if self._held is not None:
            self._held.release()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- showing

    def _rows(self) -> tuple[str, list[table.Row]]:
        try:
            listing = self._catalogue.list()
        except CheckpointError as error:  # a table is shown in any case
            return f"Repository {self.path} · {error}", []
        rows = [
            (one.entry, table.Row(one.step, one, self._conditions.get(_mark(one), "whole")))
            for one in listing.whole
        ]
        rows += [(entry, table.Row(entry.step, None, str(error))) for entry, error in listing.broken]
        count = len(rows)
        title = f"Repository {self.path} · {count} checkpoint{'' if count == 1 else 's'}"
        saving = self.saving
        if saving is not None:
            title += " · saving"
        return title, [row for _, row in sorted(rows, key=_order)]

    def __repr__(self) -> str:
        return table.as_text(*self._rows())

    def _repr_html_(self) -> str:
        return table.as_html(*self._rows())


def _order(row: tuple[Entry, Any]) -> int:
    return row[0].generation


def _mark(found: Manifest) -> tuple[str, Any]:
    """What tells a checkpoint apart from another one that later has its name."""
    return found.folder.name, found.files[layout.STRUCTURE]
