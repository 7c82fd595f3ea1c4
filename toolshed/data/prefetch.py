"""Prefetch: the next items are read, and put on the device, while the consumer works on this one."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import dataclasses
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from toolshed.data.node import Position, Reader, Transform, whole
from toolshed.errors import DataError
from toolshed.interrupts import Uninterrupted
from toolshed.settings import Settings

_PATIENCE = 1.0  # seconds that an abandoned thread is waited for

_running: weakref.WeakSet[Channel] = weakref.WeakSet()


@dataclasses.dataclass(frozen=True)
class Prefetch(Transform):
    """Items read ahead by a thread; see `Stream.prefetch`. It changes no item, so no position either."""

    n: int
    device: Any

    def __post_init__(self):
        whole("n", self.n, 1)
        if not isinstance(self.device, (jax.Device, jax.sharding.Sharding, type(None))):
            raise DataError(
                f"device is {self.device!r}; expected a jax device, a jax.sharding.Sharding, or None for the"
                " default device."
            )

    def read(self, at: Position) -> Reader:
        channel = Channel(self.n)
        # The thread must not know this generator, or dropping it would never end the thread.
        task = (self.source.read, at, self.device, Settings.here(), channel)
        run = contextvars.copy_context().run  # what the source prints lands in the consumer's cell
        thread = threading.Thread(target=run, args=(_fill, *task), name="toolshed-prefetch", daemon=True)
        channel.thread = thread
        _running.add(channel)
        try:
            with Uninterrupted():
                thread.start()
            yield from channel
        finally:
            channel.close()
            channel.join(_PATIENCE)

    @property
    def label(self) -> str:
        return f"prefetch({self.n})"

    @property
    def identity(self) -> str:
        return ""


class Channel:
    """A queue of limited length between one producer and one consumer, which either may close.

    The lock is reentrant and waiting has an end, because closing may happen in a garbage collection: in any
    thread, in the middle of anything.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._items: deque[Any] = deque()
        self._changed = threading.Condition(threading.RLock())
        self._error: BaseException | None = None
        self._ended = False  # by the producer: what is queued is still given
        self._closed = False  # by the consumer: nothing is taken any more
        self.thread: threading.Thread | None = None

    def put(self, item: Any) -> bool:
        """Queues an item, waiting for room. False if the consumer has gone."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed

    def end(self, error: BaseException | None = None) -> None:
        """Says that no item follows, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
            del item  # the consumer may be the last to hold it
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error  # its traceback holds this frame

    def close(self) -> None:
        """Tells the producer to stop."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def join(self, patience: float) -> None:
        """Waits for the producer, once and not for ever."""
        thread, self.thread = self.thread, None
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # it is the calling one, or was interrupted at its start
                thread.join(patience)


def _fill(
    read: Callable[[Position], Reader],
    at: Position,
    device: Any,
    settings: Settings,
    channel: Channel,
) -> None:
    """What the thread does."""
    try:
        with settings.hold(), contextlib.closing(read(at)) as pairs:
            for item, after in pairs:
                # Waited for here, so that what counts as read ahead lies on the device.
                placed = jax.block_until_ready(jax.device_put(jax.tree.map(_own, item), device))
                if not channel.put((placed, after)):
                    break
                del item, placed
    except BaseException as error:  # the consumer's affair, Ctrl-C and all
        channel.end(error)
    else:
        channel.end()


def _own(leaf: Any) -> Any:
    """A copy of a numpy array, whose memory the source may write the next item into.

    On a CPU device_put takes such memory over as it is, with may_alias=False too (jax 0.10.2).
    """
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


@atexit.register
def _stop_all() -> None:
    """Ends the threads before the interpreter does: one that is inside jax then would crash it."""
    channels = list(_running)
    for channel in channels:
        channel.close()
    end = time.monotonic() + _PATIENCE
    for channel in channels:
        channel.join(max(0.0, end - time.monotonic()))
