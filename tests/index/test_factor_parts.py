"""A fit of curvature may be stopped anywhere, and shared: it ends in the same bytes."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import Stopped, process, stopping

import headwater as hw
from headwater.curvature.kronecker import CovarianceSink
from headwater.engine.errors import ResourceError
from headwater.engine.files import locked
from headwater.engine.progress import Progress
from headwater.gradients.matrices import Layers
from headwater.index import factors
from headwater.index.factors import Fit, fit_factors
from headwater.index.kept_factors import factors_for
from headwater.index.parts import Parts
from small_net import rows, task

DOCUMENTS, PIECES = 12, 4
FIT = Fit("true", seed=2)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factors, "LEAST", DOCUMENTS // PIECES)


@pytest.fixture
def index(tmp_path: Path) -> hw.Index:
    return hw.Index.build(tmp_path / "index", task(), hw.Corpus.from_columns(rows(DOCUMENTS)), None)


def left(folder: Path) -> dict[str, bytes]:
    """What a fit leaves in its folder, locks aside."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@contextmanager
def runs(fail_at: int | None = None, error: BaseException | None = None) -> Generator[list[int]]:
    """How many examples each run of the model took; the one of this number raises."""
    seen: list[int] = []
    original = Layers.run

    def run(self: Any, sink: Any, chunks: Any, *args: Any, **options: Any) -> Any:
        made = original(self, sink, chunks, *args, **options)
        seen.append(len(chunks))
        if error is not None and len(seen) - 1 == fail_at:
            raise error
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Layers, "run", run)
        yield seen


def whole(index: hw.Index, folder: Path, **options: Any) -> dict[str, bytes]:
    fit_factors(index, Layers(index.task), FIT, folder=folder, **options)
    return left(folder)


@pytest.mark.parametrize("stop", range(2 * PIECES))
def test_only_the_missing_parts_are_computed(index: hw.Index, tmp_path: Path, stop: int) -> None:
    right = whole(index, tmp_path / "right")
    assert set(right) == {f"{n}.{s}" for n in ("bases", "values") for s in ("json", "safetensors")}
    with runs(stop, Stopped()), pytest.raises(Stopped):
        whole(index, tmp_path / "again")
    with runs() as seen:
        assert whole(index, tmp_path / "again") == right
    assert sum(seen) == (2 * PIECES - stop) * DOCUMENTS // PIECES


def test_stopped_at_every_change_of_a_file(index: hw.Index, tmp_path: Path) -> None:
    right, after = whole(index, tmp_path / "right"), 0
    for after in itertools.count():
        folder = tmp_path / str(after)
        try:
            with stopping(after):
                whole(index, folder)
        except Stopped:
            assert whole(index, folder) == right, after
        else:
            break
    assert after > 4 * PIECES


def fit_slowly(connection: Any, folder: str) -> None:
    """A whole fit of kept factors in a process of its own, as slow as a larger model."""
    factors.LEAST = DOCUMENTS // PIECES
    index, original = hw.Index.open(folder, task()), Layers.run
    count = Path(f"{folder}.{os.getpid()}")

    def run(*args: Any, **options: Any) -> Any:
        time.sleep(0.1)
        with count.open("a") as file:
            file.write(".")
        return original(*args, **options)

    Layers.run = run
    connection.send("begins")
    factors_for(index, Layers(index.task), FIT)


def kept(folder: Path) -> dict[str, bytes]:
    (made,) = (path for path in (folder / "curvature").iterdir() if path.is_dir())
    return left(made)


def built(folder: Path) -> hw.Index:
    return hw.Index.build(folder, task(), hw.Corpus.from_columns(rows(DOCUMENTS)), None)


def until(ready: Callable[[], bool]) -> None:
    for _ in range(3000):
        if ready():
            return
        time.sleep(0.01)
    raise AssertionError("waited for nothing")


def test_killed_and_started_again(index: hw.Index, tmp_path: Path) -> None:
    other = built(tmp_path / "other")
    factors_for(other, Layers(other.task), FIT)
    started = process(fit_slowly, str(tmp_path / "index"))
    until(lambda: bool(list(index.path.glob("curvature/*/factors/covariances/000-01.json"))))
    os.kill(started.pid, signal.SIGKILL)
    started.join()
    assert not list(index.path.glob("curvature/*/record.json"))
    with runs() as seen:
        factors_for(index, Layers(index.task), FIT)
    assert PIECES <= len(seen) < 2 * PIECES - 1
    assert kept(tmp_path / "index") == kept(tmp_path / "other")


def test_two_processes_share_a_fit(tmp_path: Path) -> None:
    for name in ("one", "two"):
        built(tmp_path / name)
    alone = process(fit_slowly, str(tmp_path / "one"))
    alone.join()
    both = [process(fit_slowly, str(tmp_path / "two")) for _ in range(2)]
    for one in both:
        one.join()
    assert [one.exitcode for one in (alone, *both)] == [0, 0, 0]
    counts = [len(path.read_text()) for path in tmp_path.glob("two.*")]
    assert len(counts) == 2
    assert sum(counts) == 2 * PIECES  # nothing twice
    assert kept(tmp_path / "two") == kept(tmp_path / "one")


def test_a_part_that_another_is_at_is_left_to_it(index: hw.Index, tmp_path: Path) -> None:
    right = whole(index, tmp_path / "right")
    folder = tmp_path / "shared"
    thread = threading.Thread(target=whole, args=(index, folder))
    with runs() as seen:
        with locked(folder / "covariances" / ".000-00.lock", "the first part"):
            thread.start()
            until(lambda: (folder / "covariances" / "000-03.json").exists())
            time.sleep(0.05)
            assert len(seen) == PIECES - 1  # all the others are there, and it waits
        thread.join()
    assert left(folder) == right
    assert len(seen) == 2 * PIECES


@pytest.mark.parametrize("harm", ["shorter", "flipped", "marked otherwise"])
def test_a_damaged_part_is_computed_again(
    index: hw.Index, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    right = whole(index, tmp_path / "right")
    with runs(PIECES - 1, Stopped()), pytest.raises(Stopped):
        whole(index, tmp_path / "again")
    part = tmp_path / "again" / "covariances" / "000-01.safetensors"
    data = part.read_bytes()
    if harm == "shorter":
        part.write_bytes(data[:-8])
    elif harm == "flipped":
        part.write_bytes(data[:-8] + bytes(8))
    else:
        part.with_suffix(".json").write_text("{}")
    with runs() as seen, caplog.at_level(logging.WARNING):
        assert whole(index, tmp_path / "again") == right
    assert len(seen) == 2 + PIECES
    assert "000-01.safetensors is damaged" in caplog.text


@pytest.mark.parametrize("name", ["bases", "values"])
def test_a_damaged_result_is_made_again(index: hw.Index, tmp_path: Path, name: str) -> None:
    right = whole(index, tmp_path / "fit")
    path = tmp_path / "fit" / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with runs() as seen:
        assert whole(index, tmp_path / "fit") == right
    assert len(seen) == PIECES


def test_memory_that_runs_out_halves_the_batch(index: hw.Index, tmp_path: Path) -> None:
    right = fit_factors(index, Layers(index.task), FIT)
    done: list[float] = []

    class Watched(Progress):
        def advance(self, n: float = 1, note: str = "") -> None:
            super().advance(n, note)
            done.append(self.done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headwater.index.passes.CPU_BUDGET", 3)
        patch.setattr(factors, "Progress", Watched)
        patch.setattr("headwater.index.passes.RANGE", 2)
        with runs(1, RuntimeError("out of memory")) as seen:
            made = fit_factors(index, Layers(index.task), FIT)
    assert seen[:5] == [2, 1, 1, 1, 1]  # the part that failed is begun again
    assert done[:4] == [0, 2, 0, 2]  # nothing was there before; and the bar goes back
    assert max(done) == DOCUMENTS
    for name, factor in right.items():
        a, b = factor.values, made[name].values
        assert float((a - b).norm() / a.norm()) < 1e-9


def test_memory_that_never_suffices_is_said(index: hw.Index) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Layers, "run", never)
        with pytest.raises(ResourceError, match="covariances"):
            fit_factors(index, Layers(index.task), FIT)
    assert not list(index.path.glob(".fit-*"))


def test_visits_multiply_the_parts(index: hw.Index, tmp_path: Path) -> None:
    entered: list[int] = []
    first = next(index.task.model.parameters())

    def visit(number: int) -> Any:
        @contextmanager
        def at() -> Generator[None]:
            entered.append(number)
            with torch.no_grad():
                first.add_(number)
            try:
                yield
            finally:
                with torch.no_grad():
                    first.sub_(number)

        return at

    visits = [visit(0), visit(1)]
    right = whole(index, tmp_path / "right", visits=visits)
    entered.clear()
    with runs(PIECES + 1, Stopped()), pytest.raises(Stopped):
        whole(index, tmp_path / "again", visits=visits)
    assert entered == [0, 1]
    entered.clear()
    with runs() as seen:
        assert whole(index, tmp_path / "again", visits=visits) == right
    assert entered == [1, 0, 1]  # nothing of the first is missing in the first pass
    assert len(seen) == PIECES - 1 + 2 * PIECES


def test_parts_add_up_to_the_whole(index: hw.Index) -> None:
    """With the same labels, which each document draws for itself."""
    drawn: list[list[int]] = []
    resample = index.task.resample

    def watched(batch: Any, seeds: Any) -> Any:
        drawn[-1] += seeds
        return resample(batch, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.task, "resample", watched)
        drawn.append([])
        cut = fit_factors(index, Layers(index.task), FIT)
        patch.setattr(factors, "LEAST", DOCUMENTS)
        drawn.append([])
        one = fit_factors(index, Layers(index.task), FIT)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == DOCUMENTS
    for name, factor in one.items():
        a, b = factor.values, cut[name].values
        assert float((a - b).norm() / a.norm()) < 1e-9


def test_no_sink_outlives_its_part(index: hw.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most: list[int] = []

    class Watched(CovarianceSink):
        def __init__(self, *args: Any) -> None:
            most.append(len(alive))
            super().__init__(*args)
            alive.add(self)

    monkeypatch.setattr(factors, "CovarianceSink", Watched)
    fit_factors(index, Layers(index.task), FIT)
    assert most == [0] * PIECES


def test_totals_are_float64(tmp_path: Path) -> None:
    big = torch.tensor([2.0**24])
    folder = Parts(tmp_path, ["a", "b", "c"], lambda: False)
    for name, value in (("a", big), ("b", torch.ones(1)), ("c", torch.ones(1))):
        folder.compute(name, lambda value=value: {"x": value, "n": torch.tensor([1])}, wait=False)
    x, n = folder.total("x", "n")
    assert (float(x), int(n)) == (2.0**24 + 2, 3)
    assert np.float32(2.0**24) + np.float32(1) == 2.0**24  # float32 would lose them
