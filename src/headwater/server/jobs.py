"""Work that takes its time, in lanes: what needs a model waits for it, what only reads does not.

The lane "model" is one thread, because one model is in memory; the lane "reader" is a few, each
with indexes of its own open, for evidence that needs no model, documents and counting.

A kind of work is `KINDS[name] = (request, function, lane)`: a pydantic model of what is asked (with
a field `index` where it is of one), `function(workbench, asked, tell) -> dict` that does it, and
`lane(workbench, asked) -> "model" | "reader"`. Within `function`, `workbench.index(name)` is right
for the lane. `tell(event, data)` sends an event to whoever watches; every `Progress` is sent by
itself. Both raise `Cancelled` once nobody wants the work any more: let it through. For who asked, a
cancelled job has ended by then.

A queue has a limit, and results are kept for a while only: memory does not grow with requests.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.progress import Progress, watching
from headwater.server.job import ENDED, Job, Lane, State, Tell
from headwater.server.told import as_json, defect, failure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from headwater.server.workbench import Workbench

logger = logging.getLogger(__name__)

QUEUE = 64  # jobs that wait in a lane
READERS = 2  # threads of the lane "reader": more of them share the interpreter, and wait for it
KEPT = 256  # jobs that have ended and can still be asked for
KEPT_SECONDS = 900.0
KEPT_BYTES = 256 << 20  # of results
TOLD_EVERY = 0.1  # seconds between two progresses that are sent
LANES = "headwater-lane-"  # how the names of their threads begin
LAST_STEP = 5.0  # seconds that a closing lane has for the step it is at


Function = Callable[["Workbench", Any, Tell], dict[str, Any]]
Kind = tuple["type[BaseModel]", Function, Callable[["Workbench", Any], Lane]]
Kinds = Mapping[str, Kind]


class Cancelled(Exception):
    """The work is not wanted any more."""


class Missing(InputError):
    """What was asked for by its name is not there."""


class QueueFull(HeadwaterError):
    """More is waiting than the queue takes."""


class Jobs:
    """The lanes, their queues, and the jobs that are known."""

    def __init__(
        self, workbench: Workbench, *, queue: int = QUEUE, readers: int = READERS, warm: bool = True
    ) -> None:
        self.workbench, self.queue, self.warm = workbench, queue, warm
        self.lock = threading.Condition()
        self._waiting: dict[Lane, deque[Job]] = {"model": deque(), "reader": deque()}
        self._busy: dict[Lane, int] = {"model": 0, "reader": 0}  # threads that are at a job
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._closed = self._open = False
        lanes: list[tuple[Lane, int]] = [("model", 1), ("reader", readers)]
        self._threads = [
            threading.Thread(
                target=self._run, args=(lane,), name=f"{LANES}{lane}-{number}", daemon=True
            )
            for lane, count in lanes
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, kind: str, asked: BaseModel, kinds: Kinds) -> Job:
        """Queue work of a kind.

        Raises:
            QueueFull: when its lane's queue is.
            HeadwaterError: for an index that there is not.
        """
        _, function, lane = kinds[kind]
        found = self.workbench.known(kind, asked)
        if found is not None:  # at once: what is known waits for nothing
            return self._known(kind, found)
        work = self.workbench.once(kind, asked, lambda tell: function(self.workbench, asked, tell))
        return self.start(kind, lane(self.workbench, asked), work)

    def _known(self, kind: str, result: str) -> Job:
        job = Job(kind, "reader", _nothing, state="done", result=result, ended=time.monotonic())
        with self.lock:
            self._jobs[job.id] = job
            self._forget()
        return job

    def start(self, kind: str, lane: Lane, work: Callable[[Tell], str]) -> Job:
        """Queue `work`, which gives back JSON."""
        job = Job(kind, lane, work)
        with self.lock:
            waiting = self._waiting[lane]
            if len(waiting) >= self.queue or self._closed:
                raise QueueFull(
                    "The server has too much to do",
                    expected=f"at most {self.queue} requests that wait",
                    found=len(waiting),
                    do="ask again in a moment",
                )
            waiting.append(job)
            self._jobs[job.id] = job
            self._moved(lane)
            self._forget()
            self.lock.notify_all()
        return job

    def get(self, name: str) -> Job | None:
        """The job of this id, if it is still known."""
        with self.lock:
            self._forget()
            return self._jobs.get(name)

    def before(self, job: Job) -> int:
        """How many others a job that waits must wait for: what its lane does now, and its queue."""
        with self.lock:
            return max(job.place - 1, 0) + self._busy[job.lane]

    def cancel(self, job: Job) -> None:
        """It ends at once for who asked. If it waits it never runs; else it stops in its own time.

        That is its next progress, so the lane may be busy with it for a while. A model that is
        being loaded has none: it is loaded to its end, and kept for who comes next.
        """
        with self.lock:
            if job.state in ENDED:
                return
            job.unwanted = True
            waited = job.state == "queued"
            if waited:
                with contextlib.suppress(ValueError):
                    self._waiting[job.lane].remove(job)
            self._end(job, "cancelled")
            if waited:
                self._moved(job.lane)

    def close(self, wait: float = LAST_STEP) -> None:
        """Take no more work; wait so many seconds for what runs to stop at its next progress."""
        with self.lock:
            self._closed = True
            for job in list(self._jobs.values()):
                self.cancel(job)
            self.lock.notify_all()
        until = time.monotonic() + wait
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def get_ready(self) -> None:
        """From now on, threads that have nothing to do make ready what will be asked for.

        Not from the start: the first screen would have to wait for it.
        """
        with self.lock:
            self._open = True
            self.lock.notify_all()

    @contextlib.contextmanager
    def watched(self, job: Job, told: Callable[[], None]) -> Generator[None]:
        """Call `told` (from any thread) whenever something of the job changes."""
        with self.lock:
            job.watchers.add(told)
        try:
            yield
        finally:
            with self.lock:
                job.watchers.discard(told)

    # -- the threads ----------------------------------------------------------------------

    def _run(self, lane: Lane) -> None:
        """Work off a lane's queue for as long as the server lives."""
        with self.workbench.working(lane):
            idle = self.workbench.warming(lane) if self.warm else iter(())
            while (job := self._next(lane, idle)) is not None:
                self._do(job)
                with self.lock:
                    self._busy[lane] -= 1

    def _next(self, lane: Lane, idle: Iterator[None] | None) -> Job | None:
        """The next job, and until there is one a step of what is good to have done."""
        while True:
            with self.lock:
                while not (self._waiting[lane] or self._closed):
                    if self._open and idle is not None:
                        break
                    self.lock.wait()
                if self._waiting[lane]:
                    return self._taken(lane)
                if self._closed:
                    return None
            idle = idle if idle is not None and _step(idle) else None

    def _taken(self, lane: Lane) -> Job:
        job = self._waiting[lane].popleft()
        job.state, job.place = "running", 0
        self._busy[lane] += 1
        self._moved(lane)
        _wake(job)
        return job

    def _do(self, job: Job) -> None:
        told, work = 0.0, job.work

        def check() -> None:
            if job.unwanted:
                raise Cancelled

        def watch(progress: Progress) -> None:
            nonlocal told
            check()
            now = time.monotonic()
            if now - told >= TOLD_EVERY:
                told = now
                self._tell_progress(job, progress)

        def tell(event: str, data: dict[str, Any]) -> None:
            with self.lock:
                check()
                job.events.append((len(job.events) + 1, event, as_json(data)))
                _wake(job)

        try:
            with watching(watch):
                check()
                result = work(tell)
                check()
        except Cancelled:
            self._finish(job, "cancelled")
        except HeadwaterError as error:
            self._finish(job, "failed", error=failure(error))
        except BaseException as error:  # whatever it is, the lane goes on
            logger.exception("work of kind %s failed", job.kind)
            self._finish(job, "failed", error=defect(error))
        else:
            self._finish(job, "done", result=result)

    def _tell_progress(self, job: Job, progress: Progress) -> None:
        made = as_json(
            {
                "label": progress.label,
                "done": progress.done,
                "total": progress.total,
                "unit": progress.unit,
                "line": progress.line(),
            }
        )
        with self.lock:
            if job.state not in ENDED:
                job.progress = made
                _wake(job)

    def _finish(
        self, job: Job, state: State, *, result: str | None = None, error: Any = None
    ) -> None:
        with self.lock:
            if job.state in ENDED:  # it was cancelled, and that was told
                return
            job.result, job.error = result, error
            self._end(job, state)

    def _end(self, job: Job, state: State) -> None:
        job.state, job.place, job.ended = state, 0, time.monotonic()
        job.work = _nothing  # lets go of what it held
        self._jobs.move_to_end(job.id)
        _wake(job)

    def _moved(self, lane: Lane) -> None:
        """Everyone who waits has a new place."""
        for place, job in enumerate(self._waiting[lane], 1):
            if job.place != place:
                job.place = place
                _wake(job)

    def _forget(self) -> None:
        """Let go of what ended long ago, or is too much to keep."""
        now = time.monotonic()
        over = [job for job in self._jobs.values() if job.state in ENDED]
        size = sum(len(job.result or "") for job in over)
        for number, job in enumerate(over):
            old = now - job.ended > KEPT_SECONDS
            if not (old or len(over) - number > KEPT or size > KEPT_BYTES):
                break
            size -= len(job.result or "")
            del self._jobs[job.id]


def _nothing(_: Tell) -> str:
    return "null"


def lanes_alive() -> bool:
    """Whether a thread of a lane, of any `Jobs` of this process, is still there."""
    return any(one.name.startswith(LANES) for one in threading.enumerate())


def _step(idle: Iterator[None]) -> bool:
    """Whether there was a step."""
    try:
        next(idle)
    except StopIteration:
        return False
    except BaseException:  # as above
        logger.exception("getting ready failed; what is asked is made ready then")
        return False
    return True


def _wake(job: Job) -> None:
    for told in list(job.watchers):
        told()
