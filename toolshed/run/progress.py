"""Progress: where a run stands, in numbers and in words."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Attributes:
      status: "ready", "training", "pausing", "paused", "evaluating", "finished", "stopped" or "failed".
      message: a line in words: why it paused, what failed; or empty.
      step: number of steps done.
      goal: the step at which training ends, or None.
      epoch: passes over the data done, 2.37 say; None where a pass has no known length.
      elapsed: seconds of training so far.
      remaining: seconds to the goal, at the present speed; None where that is not known, or it is reached.
      steps_per_second: the present speed; None before there is one.
      examples_per_second: likewise, by the first axis of the batches.
      device_bytes: memory in use on the device; None where the backend does not tell.
      device_limit: memory that can be used on the device, likewise.
      branch: the name of the current branch.
      snapshot_bytes: memory that the timeline's snapshots take.
      snapshot_budget: memory that they may take.
    """

    status: str
    message: str
    step: int
    goal: int | None
    epoch: float | None
    elapsed: float
    remaining: float | None
    steps_per_second: float | None
    examples_per_second: float | None
    device_bytes: int | None
    device_limit: int | None
    branch: str
    snapshot_bytes: int
    snapshot_budget: int
