"""Progress: silent for what is short, a bar on a terminal, plain lines elsewhere, with an ETA."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from headwater.engine.progress import Progress, clock, watching


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def screen(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> Screen:
    made = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", made)
    return made


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_short_is_silent(
    monkeypatch: pytest.MonkeyPatch, seconds: Clock, terminal: bool
) -> None:
    shown = screen(monkeypatch, terminal=terminal)
    with Progress("indexing", 19, "tokens") as progress:
        for _ in range(19):
            seconds.now += 0.1
            progress.advance()
    assert shown.getvalue() == ""


def test_plain_lines_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, seconds: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = screen(monkeypatch, terminal=False)
    with Progress("indexing", 400, "tokens") as progress:
        for _ in range(40):
            seconds.now += 1
            progress.advance(10, "loss 2.5")
    lines = shown.getvalue().splitlines()
    assert 4 <= len(lines) <= 6  # one about every ten seconds, and the last
    assert "\r" not in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    assert lines[0] == "indexing    8%  30/400 tokens  10 tokens/s  ETA 37s  loss 2.5"
    assert lines[-1] == "indexing  100%  400/400 tokens  10 tokens/s  in 40s  loss 2.5"
    assert capsys.readouterr().out == ""


def test_one_moving_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, seconds: Clock) -> None:
    shown = screen(monkeypatch, terminal=True)
    with Progress("indexing", 100) as progress:
        for _ in range(100):
            seconds.now += 0.05
            progress.advance()
    text = shown.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    draws = text.split("\r")[1:]
    assert 10 <= len(draws) <= 17  # after two seconds, five a second, and the last
    assert "ETA 3s" in draws[0]
    assert draws[-1].count("━") == 24
    assert 0 < draws[0].count("━") < 24


def test_a_failure_after_something_was_shown_ends_the_line(
    monkeypatch: pytest.MonkeyPatch, seconds: Clock
) -> None:
    shown = screen(monkeypatch, terminal=True)

    def fail() -> None:
        with Progress("indexing", 100) as progress:
            seconds.now += 5
            progress.advance()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert shown.getvalue().endswith("\n")


def test_without_a_total_there_is_a_rate_and_no_share(seconds: Clock) -> None:
    progress = Progress("reading", None, "documents")
    seconds.now += 20
    progress.advance(3_000_000)
    assert progress.line() == "reading  3.0M documents  150.0k documents/s  in 20s"


def test_before_anything_is_done(seconds: Clock) -> None:
    assert Progress("indexing", 10).line() == "indexing    0%  0/10 it  0 it/s  ETA 0s"


@pytest.mark.parametrize(
    ("given", "read"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (190, "3m10s"), (3600, "1h00m"), (7499, "2h04m")],
)
def test_times_as_people_read_them(given: float, read: str) -> None:
    assert clock(given) == read


@pytest.mark.parametrize("terminal", [False, True])
def test_a_step_inside_another_leaves_no_line(
    monkeypatch: pytest.MonkeyPatch, seconds: Clock, terminal: bool
) -> None:
    shown = screen(monkeypatch, terminal=terminal)
    with Progress("answering", 3, "queries") as outer:
        for _ in range(3):
            with Progress("scanning", 2, "examples") as inner:
                for _ in range(2):
                    seconds.now += 3
                    inner.advance()
            outer.advance()
    if terminal:
        assert shown.getvalue().count("\n") == 1
        assert shown.getvalue().rstrip("\n").split("\r")[-1].count("answering") == 1
    else:
        last = shown.getvalue().splitlines()[-1]
        assert "answering" in last
        assert not [x for x in shown.getvalue().splitlines() if "scanning  100%" in x]


def test_a_watcher_is_told_instead_of_the_screen_and_may_stop_the_work(
    monkeypatch: pytest.MonkeyPatch, seconds: Clock
) -> None:
    shown = screen(monkeypatch, terminal=False)
    told: list[tuple[str, float]] = []

    def watcher(progress: Progress) -> None:
        told.append((progress.label, progress.done))
        if progress.done == 3:
            raise KeyError("enough")

    with (
        pytest.raises(KeyError, match="enough"),
        watching(watcher),
        Progress("indexing", 9) as progress,
    ):
        for _ in range(9):
            seconds.now += 20
            progress.advance()
    assert told == [("indexing", 1), ("indexing", 2), ("indexing", 3)]
    assert shown.getvalue() == ""
    with Progress("afterwards", 2) as progress:
        seconds.now += 20
        progress.advance()
    assert "afterwards" in shown.getvalue()


def test_progress_of_two_threads_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    with watching(lambda progress: told.append(progress.label)), Progress("here", 1) as here:

        def other() -> None:
            with Progress("there", 1) as there:
                there.advance()

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        here.advance()
    assert told == ["here"]
