"""A method scores a corpus once, in a process and an index of its own, and what it cost is kept.

Alone, because costs are compared: what one method leaves in memory, or in an index's folder, must
not make the next one look cheap. On one thread, because a training is timed so, and because scores
then are the same on any number of cores. Scores are kept under a key of all that decides them, the
package's own code included, so that a second board takes them from the cache.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.files import make_folder, read_json, write_atomic, write_json
from headwater.engine.memory import PeakMemory, resident
from headwater.evidence.random_scores import digest
from headwater.index.build import Plan
from headwater.index.index import Index
from headwater.methods.scoring import scores, self_influence

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features
    from headwater.methods.method import Method
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task

Array = np.ndarray[Any, Any]

SCORES, COST, FAILED = "scores.npz", "cost.json", "failed.json"
# What decides a score; the others only judge and show.
CODE = ("corpus", "tasks", "gradients", "curvature", "index", "training", "methods", "evidence")


@dataclass(frozen=True)
class Candidate:
    """A row of a board before it has been scored.

    Args:
        name, title: of the method here; one method may stand in two rows.
        make: the method with its parameters.
        given: what it is told beyond a model and a corpus ("checkpoints", "gold", ...).
        features: what its index stores; None = nothing.
        queries: only the first so many are scored; None = all.
        own: its self-influence; None = `hw.self_influence`, where that is defined.
    """

    name: str
    title: str
    make: Callable[[], Method]
    given: tuple[str, ...] = ()
    features: Features | None = None
    queries: int | None = None
    own: Callable[[Index], Array] | None = None


@dataclass(frozen=True)
class Cost:
    """What scoring all queries took, the index's features included.

    Args:
        seconds: on one thread. memory: bytes above what the process held before. disk: bytes that
            the index grew by, beyond the corpus itself.
    """

    seconds: float
    memory: int
    disk: int


@dataclass(frozen=True)
class Outcome:
    """What a candidate said.

    Args:
        scores: float32 [queries, documents]; NaN where it did not score.
        own: self-influence, or None. cost: see `Cost`. parameters: of the method.
    """

    scores: Array
    own: Array | None
    cost: Cost
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Scoring:
    """Scores candidates on one task, corpus and set of queries, each once.

    Args:
        cache: folder of scores and indexes.
        training: all that decides the trained model and its checkpoints, JSON-serialisable.
        own: keep self-influence, too.
    """

    def __init__(
        self,
        cache: Path,
        task: Task,
        corpus: Corpus,
        queries: Sequence[Query],
        training: Mapping[str, Any],
        *,
        own: bool = False,
    ) -> None:
        self.cache, self.task, self.corpus = cache, task, corpus
        self.queries, self.training, self.own = list(queries), training, own
        self._keys: dict[str, str] = {}

    @cached_property
    def _common(self) -> dict[str, Any]:
        from headwater.index.corpus_shards import fingerprint

        return {
            "task": self.task.describe(),
            "corpus": fingerprint(self.corpus),
            "queries": [digest(query)[:16] for query in self.queries],
            "training": self.training,
            "code": code(CODE),
            "own": self.own,
        }

    def key(self, candidate: Candidate) -> str:
        """Of all that decides this candidate's scores.

        Raises:
            HeadwaterError: when the method cannot be made.
        """
        if candidate.name in self._keys:
            return self._keys[candidate.name]
        features = candidate.features
        told = {
            **self._common,
            "method": self._described(candidate.make()),
            "name": candidate.name,
            "features": None if features is None else features.describe(),
            "first": candidate.queries,
        }
        return self._keys.setdefault(candidate.name, hashed(told))

    def known(self, candidate: Candidate) -> Outcome | None:
        """What was kept, if anything."""
        folder = self.cache / "scores" / self.key(candidate)
        if not (folder / COST).exists():
            return None
        held = read_json(folder / COST)
        with np.load(folder / SCORES, allow_pickle=False) as kept:
            own = kept["own"]
            own = own if len(own) else None
            return Outcome(kept["scores"], own, Cost(**held["cost"]), held["parameters"])

    def score(self, candidate: Candidate) -> Outcome:
        """What the candidate says, taken from the cache or found now.

        Raises:
            HeadwaterError: whatever kept the method from scoring.
            RuntimeError: for a defect, with its traceback.
        """
        found = self.known(candidate)
        if found is None:
            folder = self.cache / "scores" / self.key(candidate)
            make_folder(folder)
            (folder / FAILED).unlink(missing_ok=True)
            # A fork shares the model, and takes methods that cannot be pickled.
            process = multiprocessing.get_context("fork").Process(
                target=self._in_process, args=(candidate, folder)
            )
            process.start()
            try:
                process.join()
            finally:
                if process.is_alive():
                    process.terminate()
            if (folder / FAILED).exists():
                _raise(read_json(folder / FAILED))
            found = self.known(candidate)
        if found is None:
            raise HeadwaterError(
                f"{candidate.title} ended without a result",
                found="its process was killed",
                do="look whether memory ran out",
            )
        return found

    def _in_process(self, candidate: Candidate, folder: Path) -> None:
        """Score, and leave the result or the reason in the folder."""
        import torch

        torch.set_num_threads(1)
        try:
            self._keep(candidate, folder)
        except HeadwaterError as error:
            write_json(folder / FAILED, {"error": str(error), "trace": None})
        except Exception as error:
            told = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            write_json(folder / FAILED, told)

    def _keep(self, candidate: Candidate, folder: Path) -> None:
        place = self.cache / "indexes" / folder.name
        shutil.rmtree(place, ignore_errors=True)  # half of one would make the method look cheap
        before, clock = resident(), time.perf_counter()
        with PeakMemory(self.task.device) as peak:
            plan = Plan(references=False)
            index = Index.build(place, self.task, self.corpus, candidate.features, plan)
            method = candidate.make()
            found = np.full((len(self.queries), len(index)), np.nan, dtype=np.float32)
            some = slice(candidate.queries)
            found[some] = scores(index, self.queries[some], method=method)
        seconds = time.perf_counter() - clock
        disk = size(place) - size(place / "corpus")
        memory = peak.bytes - (before if self.task.device.type == "cpu" else 0)
        own = self._own(candidate, index, method) if self.own else None
        row = np.zeros(0) if own is None else own.astype(np.float64)

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez_compressed(file, scores=found, own=row)

        write_atomic(folder / SCORES, write)
        cost = asdict(Cost(round(seconds, 3), max(0, memory), disk))
        write_json(folder / COST, {"cost": cost, "parameters": self._described(method)})
        shutil.rmtree(place, ignore_errors=True)

    def _own(self, candidate: Candidate, index: Index, method: Method) -> Array | None:
        if candidate.own is not None:
            return candidate.own(index)
        try:
            return self_influence(index, method=method)
        except InputError:  # it has none, or one that says nothing
            return None

    def _described(self, method: Method) -> dict[str, Any]:
        """The method's parameters, without where the cache lies."""
        told = json.dumps(method.describe(), default=str).replace(str(self.cache), "cache")
        return json.loads(told)


def _raise(failed: Mapping[str, Any]) -> None:
    if failed["trace"] is None:
        raise HeadwaterError(str(failed["error"]))
    raise RuntimeError(f"{failed['error']}\n{failed['trace']}")


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def hashed(value: Any) -> str:
    """A short hash of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def same(values: Array | None) -> str:
    """A short hash of an array's numbers."""
    if values is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:24]


@cache
def code(parts: tuple[str, ...]) -> str:
    """A hash of the source of these parts of the package: what was kept counts for it alone."""
    root = Path(__file__).parents[1]
    made = hashlib.sha256()
    for part in parts:
        for path in sorted((root / part).rglob("*.py")):
            made.update(f"{path.relative_to(root)}|".encode())
            made.update(path.read_bytes())
    return made.hexdigest()[:16]
