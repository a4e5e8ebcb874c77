"""An index build with a clock on each of its stages, for the benchmarks that want them apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import headwater as hw
import headwater.index.build as stage

STAGES = ("calibrate", "build_shards", "finish")


def timed_build(
    folder: Path, task: Any, corpus: hw.Corpus, features: hw.Features, plan: hw.Plan
) -> dict[str, float]:
    """Build, and return wall seconds: of each stage by its function's name, and `total`."""
    seconds: dict[str, float] = {}
    before = {name: getattr(stage, name) for name in STAGES}

    def clocked(name: str) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            start = time.perf_counter()
            result = before[name](*given)
            seconds[name] = time.perf_counter() - start
            return result

        return run

    start = time.perf_counter()
    try:
        for name in STAGES:
            setattr(stage, name, clocked(name))
        hw.Index.build(folder, task, corpus, features, plan)
    finally:
        for name, function in before.items():
            setattr(stage, name, function)
    return seconds | {"total": time.perf_counter() - start}
