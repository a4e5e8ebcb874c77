"""Lanes, their queues, cancelling, and what a connection that comes again is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.server import jobs as module
from headwater.server.job import Job, Tell
from headwater.server.jobs import Cancelled, Jobs, QueueFull, lanes_alive
from headwater.server.streams import ended, events
from headwater.server.told import as_json
from headwater.server.workbench import Workbench


@pytest.fixture
def jobs(workbench: Workbench) -> Iterator[Jobs]:
    made = Jobs(workbench, queue=3, warm=False)
    yield made
    made.close()


class Held:
    """Work that goes on when it is told to, and says when it has begun."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, tell: Tell) -> str:
        self.begun.set()
        assert self.go.wait(30)
        return '"held"'


def wait(jobs: Jobs, *many: Job) -> None:
    for one in many:
        assert asyncio.run(ended(jobs, one, 30))


def test_one_lane_works_in_order_and_the_other_does_not_wait(jobs: Jobs) -> None:
    held, order = Held(), list[int]()
    first = jobs.start("a", "model", held)
    assert held.begun.wait(30)

    def noting(number: int) -> Callable[[Tell], str]:
        def work(tell: Tell) -> str:
            order.append(number)
            return "null"

        return work

    later = [jobs.start("b", "model", noting(n)) for n in range(3)]
    assert [one.place for one in later] == [1, 2, 3]
    reading = jobs.start("c", "reader", lambda tell: '"read"')
    wait(jobs, reading)  # while the model is busy
    assert (first.state, reading.result) == ("running", '"read"')
    held.go.set()
    wait(jobs, first, *later)
    assert order == [0, 1, 2]
    assert {one.place for one in later} == {0}


def test_a_full_queue_says_so(jobs: Jobs) -> None:
    held = Held()
    jobs.start("a", "model", held)
    assert held.begun.wait(30)
    waiting = [jobs.start("b", "model", lambda tell: "1") for _ in range(3)]
    with pytest.raises(QueueFull, match="too much to do.*at most 3"):
        jobs.start("b", "model", lambda tell: "1")
    held.go.set()
    wait(jobs, *waiting)
    wait(jobs, jobs.start("b", "model", lambda tell: "1"))


def test_what_waits_is_cancelled_at_once_and_never_runs(jobs: Jobs) -> None:
    held, ran = Held(), list[int]()
    jobs.start("a", "model", held)
    assert held.begun.wait(30)
    one, two = (jobs.start("b", "model", lambda t, n=n: str(ran.append(n))) for n in (1, 2))
    jobs.cancel(one)
    assert (one.state, two.place) == ("cancelled", 1)
    held.go.set()
    wait(jobs, two)
    assert ran == [2]


def test_what_runs_is_cancelled_at_its_next_progress(jobs: Jobs) -> None:
    held, steps = Held(), list[int]()

    def work(tell: Tell) -> str:
        with Progress("steps", 10, "steps") as progress:
            for step in range(10):
                steps.append(step)
                progress.advance()
                if step == 2:
                    held(tell)
        return "null"

    job = jobs.start("a", "model", work)
    assert held.begun.wait(30)
    jobs.cancel(job)
    held.go.set()
    wait(jobs, jobs.start("b", "model", lambda tell: "1"))  # the lane goes on
    assert job.state == "cancelled"
    assert steps == [0, 1, 2, 3]  # it stopped where it next said how far it was


def test_what_runs_has_ended_for_who_cancels_it_though_it_says_nothing(jobs: Jobs) -> None:
    """As while a model is loaded, which has no progress of its own."""
    held = Held()
    job = jobs.start("a", "model", held)
    assert held.begun.wait(30)
    later = jobs.start("b", "model", lambda tell: "1")
    jobs.cancel(job)
    wait(jobs, job)  # while it goes on
    assert (job.state, later.state, later.place) == ("cancelled", "queued", 1)

    async def heard() -> str:
        return "".join([text async for text in events(jobs, job)])

    assert read(asyncio.run(heard())) == [("cancelled", {})]
    held.go.set()
    wait(jobs, later)
    assert (job.state, job.result, job.error) == ("cancelled", None, None)
    jobs.cancel(later)
    assert later.state == "done"  # what has ended stays as it ended


def test_work_that_swallows_nothing_is_cancelled_between_pieces_of_text(jobs: Jobs) -> None:
    held = Held()

    def work(tell: Tell) -> str:
        tell("token", {"text": "a"})
        held(tell)
        with pytest.raises(Cancelled):
            tell("token", {"text": "b"})
        raise Cancelled

    job = jobs.start("a", "model", work)
    assert held.begun.wait(30)
    jobs.cancel(job)
    held.go.set()
    wait(jobs, job)
    assert [json.loads(data)["text"] for _, _, data in job.events] == ["a"]


def test_failures_are_told_in_their_parts_and_defects_without_a_traceback(jobs: Jobs) -> None:
    def wrong(tell: Tell) -> str:
        raise InputError("Wrong", expected="this", found=3, do="that")

    def broken(tell: Tell) -> str:
        raise ZeroDivisionError("by\n0")

    one, two = jobs.start("a", "reader", wrong), jobs.start("a", "reader", broken)
    wait(jobs, one, two)
    assert one.error == {"wrong": "Wrong", "expected": "this", "found": "3", "do": "that"}
    assert two.error is not None
    assert two.error["wrong"] == "ZeroDivisionError: by 0"
    assert "defect" in two.error["do"]
    assert json.loads(one.to_json())["state"] == "failed"


def test_a_lane_outlives_whatever_its_work_raises(jobs: Jobs) -> None:
    """An extension module's panic is no Exception."""

    def panic(tell: Tell) -> str:
        raise SystemExit("panic")

    one, two = jobs.start("a", "model", panic), jobs.start("a", "model", lambda _: '"fine"')
    wait(jobs, one, two)
    assert (one.state, two.state) == ("failed", "done")


def test_results_are_kept_for_a_while_only(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    made: list[Job] = []
    for number in range(6):
        made.append(jobs.start("a", "reader", lambda t, n=number: str(n)))
        wait(jobs, made[-1])
    assert [jobs.get(one.id) is not None for one in made] == [False] * 3 + [True] * 3
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    large = jobs.start("a", "reader", lambda tell: '"' + "x" * 100 + '"')
    wait(jobs, large)
    last = jobs.start("a", "reader", lambda tell: "1")
    wait(jobs, last)
    assert jobs.get(large.id) is None
    assert jobs.get(last.id) is last
    monkeypatch.setattr(module, "KEPT_SECONDS", -1.0)
    assert jobs.get(last.id) is None


def read(text: str) -> list[tuple[str, Any]]:
    """(event, data) of server-sent events."""
    found: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[:1] != ":")
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_who_connects_again_is_told_the_state_anew_and_no_text_twice(jobs: Jobs) -> None:
    held = Held()

    def work(tell: Tell) -> str:
        for text in "abc":
            tell("token", {"text": text})
        with Progress("steps", 2, "steps") as progress:
            progress.advance()
            held(tell)
        tell("token", {"text": "d"})
        return '{"text": "abcd"}'

    job = jobs.start("generate", "model", work)
    assert held.begun.wait(30)

    async def connect() -> tuple[str, str]:
        first = ""
        stream = events(jobs, job)
        async for text in stream:
            first += text
            if "event: progress" in first:
                break
        await stream.aclose()
        assert not job.watchers
        rest = ""
        held.go.set()
        async for text in events(jobs, job, last=3):
            rest += text
        return first, rest

    first, rest = asyncio.run(connect())
    assert [data["text"] for name, data in read(first) if name == "token"] == ["a", "b", "c"]
    told = read(rest)
    assert [data["text"] for name, data in told if name == "token"] == ["d"]
    assert told[0][0] in ("progress", "token")
    assert dict(told)["progress"]["label"] == "steps"
    assert told[-1] == ("result", {"text": "abcd"})
    assert "id: 4\n" in rest


def test_those_who_wait_hear_what_is_before_them_and_when_they_begin(jobs: Jobs) -> None:
    held, second, last = Held(), Held(), Held()
    jobs.start("a", "model", held)
    assert held.begun.wait(30)
    jobs.start("b", "model", second)
    third = jobs.start("c", "model", last)

    async def follow() -> str:
        text = ""
        async for part in events(jobs, third):
            text += part
            if '"place": 2' in part:
                held.go.set()
            if '"place": 1' in part:
                second.go.set()
            if "running" in part:
                last.go.set()
        return text

    *waited, running, result = read(asyncio.run(follow()))
    # What goes on is before it, too; it is told of by nothing else, as it has no place.
    assert waited[0] == ("queued", {"place": 2, "before": 2})
    assert waited[-1] == ("queued", {"place": 1, "before": 1})
    assert running == ("running", {})
    assert result[0] == "result"


def test_who_comes_after_what_was_cancelled_waits_for_its_last_step(jobs: Jobs) -> None:
    held = Held()
    job = jobs.start("a", "model", held)
    assert held.begun.wait(30)
    jobs.cancel(job)
    later = jobs.start("b", "model", lambda tell: "1")
    assert (later.place, jobs.before(later)) == (1, 1)  # the lane is still at what was cancelled
    held.go.set()
    wait(jobs, later)
    assert jobs.before(later) == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": float("nan"), "b": [float("inf"), 1.5]}, '{"a": null, "b": [null, 1.5]}'),
        ({"a": np.float32(0.5), "b": np.arange(2)}, '{"a": 0.5, "b": [0, 1]}'),
        ({"a": (np.array([np.nan]), None, True)}, '{"a": [[null], null, true]}'),
        ("\ud800é", '"\\ud800é"'),
    ],
)
def test_json_is_what_every_browser_reads(value: Any, text: str) -> None:
    assert as_json(value) == text
    as_json(value).encode()


def test_closing_waits_for_the_step_that_a_lane_is_at(workbench: Workbench) -> None:
    made, held = Jobs(workbench, warm=False), Held()
    made.start("a", "model", held)
    assert held.begun.wait(30)
    made.close(0.01)
    assert lanes_alive()
    threading.Timer(0.05, held.go.set).start()
    made.close(30)
    assert not any(thread.is_alive() for thread in made._threads)
