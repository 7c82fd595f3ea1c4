"""Every error and warning that toolshed raises on purpose.

    ToolshedError
    ├── ModelError           a model that cannot be split or bound
    ├── StateError           a TrainState, or a part of one, that does not fit
    │   └── SnapshotError    a snapshot that does not fit the state it is loaded into
    ├── LossError            a loss function that broke its protocol
    ├── BatchError           a batch that the step cannot take
    ├── DataError            a data source that cannot give batches
    ├── ContextKeyError      (also KeyError) a path that is not in the Context
    ├── FieldNotFilled       (also AttributeError) a Context field that nobody asked for
    ├── HistoryError         values that a history cannot take, or does not have
    ├── RunError             a run was asked for what it cannot do
    ├── StoreError           a run on the disk that is not there, or cannot be read
    ├── NonFiniteError       (also FloatingPointError) a loss that is NaN or infinite
    └── CheckpointError      a repository of checkpoints that cannot do what was asked
        ├── CheckpointNotFoundError   (also LookupError) no checkpoint of that step or tag
        ├── CheckpointDamagedError    files that are not as they were written, or never were a checkpoint
        ├── CheckpointMismatchError   a checkpoint that does not fit the state it is loaded into
        ├── CheckpointSchemaError     a checkpoint that a newer toolshed wrote
        ├── RepositoryLockedError     another process writes there
        └── SaveError                 (also OSError) a checkpoint that could not be written

    ToolshedWarning (a UserWarning)
    ├── RetraceWarning       a step was compiled again, and why
    ├── CapacityWarning      an exact metric saw more examples than it has room for
    ├── OptimizerWarning     a snapshot was made with other hyperparameters
    ├── ReplayWarning        steps that a run made again came out differently
    ├── ListenerWarning      a listener of a run failed and is not called any more
    ├── ViewWarning          a view of a run failed; the run goes on
    ├── StoreWarning         a run cannot be written to the disk; it goes on
    ├── ExhaustedWarning     the data ended before the requested steps were done
    ├── CheckpointWarning    a damaged checkpoint was stepped over, or a lock could not be had
    ├── PartialRestoreWarning  some leaves were not restored, as partial=True allows
    └── EnvironmentWarning   a checkpoint was made with other versions or on other devices

Each message says what came, what was expected, where, and the one thing to do.
"""

from __future__ import annotations

from typing import Any


class ToolshedError(Exception):
    """Base of all errors that toolshed raises on purpose."""


class ModelError(ToolshedError, ValueError):
    """A model cannot be split into skeleton and parameters, or bound again."""


class StateError(ToolshedError, ValueError):
    """A TrainState, or values meant for one, do not fit."""


class SnapshotError(StateError):
    """A snapshot does not fit the state that it is loaded into."""


class LossError(ToolshedError, ValueError):
    """A loss function did not take or return what its protocol says."""


class BatchError(ToolshedError, ValueError):
    """A batch is not what the step can take, or not what it took before."""


class DataError(ToolshedError, ValueError):
    """A data source is empty, exhausted or inconsistent."""


class ContextKeyError(ToolshedError, KeyError):
    """A path names nothing in the Context."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument: a message would be printed with quotes.
        return str(self.args[0])


class FieldNotFilled(ToolshedError, AttributeError):  # noqa: N818  (says what happened)
    """A Context field was read that this step did not compute."""


class HistoryError(ToolshedError, ValueError):
    """A history cannot take some values, or does not have those that were asked for."""


class RunError(ToolshedError):
    """A run was asked for what it cannot do now, or at all."""


class StoreError(ToolshedError):
    """A run on the disk is not there, is damaged, or is not what it is asked to be."""


class NonFiniteError(ToolshedError, FloatingPointError):
    """A loss became NaN or infinite.

    Attributes:
      step: the number of the first step whose loss was not finite.
      state: the newest TrainState at the time it was noticed, or None.
    """

    def __init__(self, message: str, *, step: int | None = None, state: Any = None):
        super().__init__(message)
        self.step = step
        self.state = state


class CheckpointError(ToolshedError):
    """A repository of checkpoints cannot do what was asked."""


class CheckpointNotFoundError(CheckpointError, LookupError):
    """There is no checkpoint of that step, tag or metric."""


class CheckpointDamagedError(CheckpointError):
    """Files of a checkpoint are missing, changed or too many, or never were a checkpoint's."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint does not fit the state that it is loaded into."""


class CheckpointSchemaError(CheckpointError):
    """A checkpoint was written by a newer version of toolshed."""


class RepositoryLockedError(CheckpointError):
    """Another process writes checkpoints there."""


class SaveError(CheckpointError, OSError):
    """A checkpoint could not be written: a full disk, a missing permission."""


class ToolshedWarning(UserWarning):
    """Base of all warnings that toolshed gives."""


class RetraceWarning(ToolshedWarning):
    """A compiled step had to be compiled again."""


class CapacityWarning(ToolshedWarning):
    """A metric that keeps its examples saw more of them than it has room for, and is NaN."""


class OptimizerWarning(ToolshedWarning):
    """A snapshot was made by the same optimiser with other hyperparameters."""


class ReplayWarning(ToolshedWarning):
    """Steps that a run made again did not come out as they did the first time."""


class ListenerWarning(ToolshedWarning):
    """A listener of a run failed, and is not called any more."""


class ViewWarning(ToolshedWarning):
    """A view of a run failed; the run itself is not touched."""


class StoreWarning(ToolshedWarning):
    """A run cannot be written to the disk; it goes on, and is written once that works again."""


class ExhaustedWarning(ToolshedWarning):
    """The data ended before the requested number of steps was done."""


class CheckpointWarning(ToolshedWarning):
    """A damaged checkpoint was stepped over, or a lock could not be had."""


class PartialRestoreWarning(ToolshedWarning):
    """Some leaves were not restored, as ``partial=True`` allows."""


class EnvironmentWarning(ToolshedWarning):
    """A checkpoint was made with other versions or on other devices, so training is not bit for bit."""
