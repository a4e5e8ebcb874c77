"""A job as server-sent events: the state it is in, then whatever changes, until it ends.

Who connects again is told the state anew, and of the pieces of text only those that come after the
one it had last (the browser says which).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from headwater.engine.errors import HeadwaterError
from headwater.server.job import ENDED, Job, Lane
from headwater.server.jobs import Jobs
from headwater.server.told import as_json

LOOK = 1.0  # seconds between two looks at whether anybody still waits
PULSE = 10.0  # seconds of silence after which a line says that the connection lives
AGAIN = 1000  # milliseconds after which a browser connects again


class Defect(HeadwaterError):
    """What failed by a mistake of ours, and not of who asked."""


async def ended(jobs: Jobs, job: Job, seconds: float) -> bool:
    """Wait for the job's end, for so many seconds at most; whether it came."""
    woken, loop = asyncio.Event(), asyncio.get_running_loop()
    with jobs.watched(job, lambda: _set(loop, woken)):
        until = loop.time() + seconds
        while job.state not in ENDED:
            try:
                await asyncio.wait_for(woken.wait(), max(until - loop.time(), 0))
            except TimeoutError:
                return job.state in ENDED
            woken.clear()
    return True


async def done(
    jobs: Jobs, lane: Lane, work: Callable[[], Any], gone: Callable[[], Awaitable[bool]]
) -> Any:
    """Do `work` in a lane, and wait for what it gives back.

    Args:
        gone: whether who asked went away. It is asked for: servers don't stop a handler then.

    Raises:
        HeadwaterError: as the work does.
        Defect: where it fails in any other way.
    """
    held: list[Any] = []
    raised: list[HeadwaterError] = []

    def kept(_: Any) -> str:
        try:
            held.append(work())
        except HeadwaterError as error:
            raised.append(error)
        return "null"

    job = jobs.start("reading", lane, kept)
    try:
        while not await ended(jobs, job, LOOK):
            if await gone():
                break
    finally:
        jobs.cancel(job)  # which does nothing to one that has ended
    if raised:
        raise raised[0]
    if not held:
        if job.error is None:
            raise HeadwaterError("The work was stopped")
        raise Defect(str(job.error["wrong"]), do=job.error["do"])
    return held[0]


async def events(jobs: Jobs, job: Job, last: int = 0) -> AsyncIterator[str]:
    """The job's events as text; `last` is the number of the last one that was had."""
    woken, loop = asyncio.Event(), asyncio.get_running_loop()
    told = Told(last)
    with jobs.watched(job, lambda: _set(loop, woken)):
        yield f"retry: {AGAIN}\n\n"
        while True:
            with jobs.lock:
                news, over = told.news(job, jobs.before(job)), job.state in ENDED
            for text in news:
                yield text
            if over:
                return
            try:
                await asyncio.wait_for(woken.wait(), PULSE)
            except TimeoutError:
                yield ": still here\n\n"
            woken.clear()


class Told:
    """What one connection has been told of a job."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.queued: dict[str, int] | None = None
        self.progress: str | None = None

    def news(self, job: Job, before: int) -> list[str]:
        """Events that are new to it; `before`: how many others the job waits for."""
        made: list[str] = []
        queued = {"place": job.place, "before": before}
        if job.state == "queued" and queued != self.queued:
            self.queued = queued
            made.append(_event("queued", json.dumps(queued)))
        if job.state == "running" and self.queued is not None:
            self.queued = None  # it waits no longer, though it may have no progress to tell of
            made.append(_event("running", "{}"))
        for number, name, data in job.events[self.last :]:
            made.append(_event(name, data, number))
            self.last = number
        if job.progress is not None and job.progress is not self.progress:
            self.progress = job.progress
            made.append(_event("progress", job.progress))
        if job.state == "done":
            made.append(_event("result", job.result or "null"))
        elif job.state == "failed":
            made.append(_event("failed", as_json({"error": job.error})))
        elif job.state == "cancelled":
            made.append(_event("cancelled", "{}"))
        return made


def _event(name: str, data: str, number: int | None = None) -> str:
    known = "" if number is None else f"id: {number}\n"
    return f"{known}event: {name}\ndata: {data}\n\n"


def _set(loop: asyncio.AbstractEventLoop, woken: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(woken.set)
