"""Progress with rate and ETA, silent for whatever ends within two seconds.

On a terminal it is one moving bar; elsewhere (a log, a pipe) it is a plain line every ten seconds.
Both go to standard error, so that standard output stays a result. A step inside another (the scan
of one query of many) leaves no line of its own behind. `watching` sends the progress of what runs
within it to a function instead, which may stop the work by raising.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

PATIENCE = 2.0  # seconds of work before anything is shown
LINE_EVERY = 10.0  # seconds between plain lines where there is no terminal
DRAW_EVERY = 0.2
SOON = 0.002  # of the work: before that, a first piece says nothing of the rest


def clock(seconds: float) -> str:
    """`seconds` as people read it: 42s, 3m10s, 2h05m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


# Of this thread or task: those within `with`, outermost first; and who is told of advances.
_opened: ContextVar[tuple[Progress, ...]] = ContextVar("opened", default=())
_watcher: ContextVar[Callable[[Progress], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(told: Callable[[Progress], None]) -> Generator[None]:
    """Call `told` at every advance of any progress within, in this thread; nothing is drawn.

    What `told` raises goes through the work that advanced: this is how work is cancelled.
    """
    before = _watcher.set(told)
    try:
        yield
    finally:
        _watcher.reset(before)


class Progress:
    """Counts `unit`s of work towards `total` (None when it is not known).

    Use as a context manager and call `advance(n, note)` after each piece of work.
    """

    def __init__(self, label: str, total: float | None, unit: str = "it") -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0.0
        self._start = self._drawn = time.monotonic()
        self._shown = False
        self._told = -1.0  # done, when it was last drawn
        self._note = ""
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        _opened.set((*_opened.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        opened = _opened.get()
        inner = bool(opened) and opened[0] is not self
        _opened.set(tuple(one for one in opened if one is not self))
        if self._shown and not inner and (self._terminal or self._told != self.done):
            self._draw(last=True)
        elif self._shown and self._terminal:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()

    def advance(self, n: float = 1, note: str = "") -> None:
        """Record `n` more units done; `note` is shown beside the rate (a loss, for example)."""
        self.done += n
        self._note = note or self._note
        watcher = _watcher.get()
        if watcher is not None:
            watcher(self)
            return
        now = time.monotonic()
        wait = DRAW_EVERY if self._terminal else LINE_EVERY
        if now - self._start > PATIENCE and (not self._shown or now - self._drawn > wait):
            self._shown, self._drawn = True, now
            self._draw(last=False)

    def line(self) -> str:
        """The state in one line: label, share, rate, ETA, note."""
        spent = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / spent
        parts = [self.label]
        if self.total:
            share = min(self.done / self.total, 1.0)
            parts.append(f"{share:4.0%}")
            parts.append(f"{_count(self.done)}/{_count(self.total)} {self.unit}")
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            when = f"ETA {clock(left)}" if self.done < self.total else f"in {clock(spent)}"
            if 0 < share < SOON:
                when = "ETA unknown yet"
        else:
            parts.append(f"{_count(self.done)} {self.unit}")
            when = f"in {clock(spent)}"
        parts += [f"{_count(rate)} {self.unit}/s", when]
        if self._note:
            parts.append(self._note)
        return "  ".join(parts)

    def _draw(self, *, last: bool) -> None:
        self._told = self.done
        if not self._terminal:
            sys.stderr.write(self.line() + "\n")
        else:
            width = 24
            share = min(self.done / self.total, 1.0) if self.total else 0.0
            bar = ("━" * round(share * width)).ljust(width, "╌")
            sys.stderr.write(f"\r\x1b[2K{bar}  {self.line()}" + ("\n" if last else ""))
        sys.stderr.flush()


def _count(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if suffix == "k" else limit)
            return f"{scaled:.1f}{suffix}"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
