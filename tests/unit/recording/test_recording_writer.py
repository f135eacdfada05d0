"""The writing thread: order, errors and interruptions."""

from __future__ import annotations

import threading
import time

import pytest

from auditkit.core.errors import StoreError
from auditkit.recording.writer import QUEUED, BatchWriter


def nothing() -> None:
    """Finish without anything left to do."""


def test_jobs_run_in_order_in_another_thread() -> None:
    ran: list[tuple[int, str]] = []
    with BatchWriter(finish=nothing) as writer:
        for number in range(20):
            writer.submit(lambda n=number: ran.append((n, threading.current_thread().name)))
    assert ran == [(n, "auditkit-writer") for n in range(20)]


def test_an_error_reaches_the_caller_and_later_jobs_are_dropped() -> None:
    ran: list[int] = []

    def fail() -> None:
        raise StoreError("disk full")

    def submit_on() -> None:
        with BatchWriter(finish=nothing) as writer:
            writer.submit(lambda: ran.append(0))
            writer.submit(fail)
            for number in range(1, 50):
                writer.submit(lambda n=number: ran.append(n))
                time.sleep(0.001)

    with pytest.raises(StoreError, match="disk full"):
        submit_on()
    assert ran == [0]


def test_an_error_in_the_last_job_is_raised_on_leaving() -> None:
    def fail() -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"), BatchWriter(finish=nothing) as writer:
        writer.submit(fail)


def test_what_was_submitted_is_written_when_the_caller_fails() -> None:
    ran: list[int] = []

    def submit_and_fail() -> None:
        with BatchWriter(finish=nothing) as writer:
            for number in range(QUEUED):
                writer.submit(lambda n=number: (time.sleep(0.02), ran.append(n)))
            raise KeyboardInterrupt("ctrl-c")

    with pytest.raises(KeyboardInterrupt, match="ctrl-c"):
        submit_and_fail()
    assert ran == list(range(QUEUED))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt("ctrl-c"), StoreError("disk full")])
def test_finish_runs_last_however_the_writer_is_left(error: BaseException | None) -> None:
    ran: list[str] = []

    def write() -> None:
        with BatchWriter(finish=lambda: ran.append("finish")) as writer:
            writer.submit(lambda: ran.append("job"))
            if error is not None:
                raise error

    if error is None:
        write()
    else:
        with pytest.raises(type(error), match=str(error)):
            write()
    assert ran == ["job", "finish"]


def test_an_error_in_finish_is_raised_on_leaving() -> None:
    def fail() -> None:
        raise StoreError("disk full")

    with pytest.raises(StoreError, match="disk full"), BatchWriter(finish=fail):
        pass


def test_the_queue_is_bounded() -> None:
    started, release = threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        release.wait(5)

    submitted: list[int] = []

    def submit_many(writer: BatchWriter) -> None:
        for number in range(QUEUED + 3):
            writer.submit(wait)
            submitted.append(number)

    with BatchWriter(finish=nothing) as writer:
        feeder = threading.Thread(target=submit_many, args=(writer,))
        feeder.start()
        assert started.wait(5)
        time.sleep(0.1)
        assert len(submitted) == QUEUED + 1
        release.set()
        feeder.join()
