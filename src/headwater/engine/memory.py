"""The peak of memory over a stretch of work, of this process or of a CUDA device; and its end.

The process is looked at every few milliseconds from a thread: the system's own peak would also hold
what was before (loading a model takes more than using it).
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MUCH = 1 << 30  # bytes that a process holds when it is worth the time to give some back
INTERVAL = 0.005  # seconds between two looks
_STATM = Path("/proc/self/statm")


class PeakMemory:
    """A context manager; afterwards `bytes` is the peak while it was open."""

    def __init__(self, device: torch.device) -> None:
        self.bytes = 0
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self._device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._device.type == "cuda":
            import torch

            self.bytes = int(torch.cuda.max_memory_allocated(self._device))
            return
        self._stop.set()
        self._thread.join()
        self.bytes = max(self.bytes, resident())

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self.bytes = max(self.bytes, resident())


def resident() -> int:
    """Bytes this process holds in memory now; its peak so far where the system tells no more."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def give_back(above: int = 0) -> None:
    """Let the system have the memory that is free: caches of CUDA, and what malloc keeps.

    glibc keeps freed blocks below 32 MB, which is what a layer's matrices are: gigabytes, after a
    stage of work that made one for every layer. Nothing is done where the process holds fewer bytes
    than `above`: looking through all objects takes a tenth of a second.
    """
    import ctypes
    import gc

    import torch

    if resident() < above:
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether this is what running out of memory looks like."""
    import torch

    text = str(error)
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in text
        or "out of memory" in text
    )
