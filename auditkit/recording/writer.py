"""Write batches in a thread of their own, so that the model does not wait for the disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

QUEUED = 2
"""Batches that may wait: their activations are held in memory."""

Job = Callable[[], None]


class BatchWriter:
    """Runs jobs one after the other in a thread; use it as a context manager.

    The first error of a job ends the writing: later jobs are dropped, and the error is raised by
    the next `submit` or on leaving. Leaving waits for what was submitted and then runs `finish`,
    whether it is left in peace, by an error or by Ctrl-C: batches that were computed are kept.
    """

    def __init__(self, *, finish: Job) -> None:
        self._finish = finish
        self._jobs: queue.Queue[Job | None] = queue.Queue(maxsize=QUEUED)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="auditkit-writer", daemon=True)

    def __enter__(self) -> BatchWriter:
        self._thread.start()
        return self

    def submit(self, job: Job) -> None:
        """Queue `job`, waiting while the queue is full; raise what an earlier job raised."""
        self._raise_error()
        self._jobs.put(job)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._jobs.put(None)
        self._thread.join()
        if error is None:
            self._raise_error()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._error is None:
                self._run(job)
        self._run(self._finish)

    def _run(self, job: Job) -> None:
        try:
            job()
        except BaseException as error:
            self._error = self._error or error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
