"""What is served, and how it is kept: indexes, one model, scores and answers. Nothing of HTTP.

Indexes are known by names and opened when they are first asked for. One model is in memory: to load
another index's lets the former go (two indexes of the same model share it). What is asked twice is
worked out once: answers by what was asked, score vectors by index, query and method.

`workbench.index(name)` is the index for the thread that asks: with its model in the lane "model",
without one elsewhere. `workbench.scores(...)` is the score vector of a query.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.kept import Kept
from headwater.evidence.method_table import method_of_texts
from headwater.index.manifest import Manifest, read_manifest
from headwater.index.store import has_current
from headwater.server.jobs import Missing
from headwater.server.named import named
from headwater.server.served import ModelState, Served, model_of
from headwater.server.told import as_json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from headwater.methods.method import Method
    from headwater.server.job import Lane, Tell
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.run import TrainingRun

Array = np.ndarray[Any, Any]

SCORES_BYTES = 256 << 20  # of score vectors
ANSWERS_CHARACTERS = 64 << 20  # of answers as JSON
REQUESTS_CHARACTERS = 16_000_000  # of queries whose scores can be made again
RANKED = {"lexical": "bm25", "semantic": "dense"}  # methods of kinds that are scored by one
VERBATIM = "verbatim"
WARMED = ("lexical", VERBATIM)
# Work that is not the same when it is done again, or whose result lies on the disk.
NOT_KEPT = frozenset({"generate", "verify", "load", "map"})


@dataclass(frozen=True)
class Opening:
    """How models are opened.

    Args:
        model: where the indexes' model is instead. trust_model, trust_remote_code, device: as on
            the command line. run, base: of the training, for methods and tests that need them.
        threads: that torch computes with; None = as it likes.
    """

    model: str | None = None
    trust_model: bool = False
    trust_remote_code: bool = False
    device: str | None = None
    run: Path | None = None
    base: Path | None = None
    threads: int | None = None


class Workbench:
    """The indexes that are served, by name.

    Args:
        indexes: their folders. query_sets: JSON Lines files by name. boards: folders with a
            board.json by name.

    Raises:
        InputError, DamageError: for a folder that is no finished index.
    """

    def __init__(
        self,
        indexes: Sequence[Path],
        opening: Opening | None = None,
        *,
        query_sets: Mapping[str, Path] | None = None,
        boards: Mapping[str, Path] | None = None,
    ) -> None:
        self.opening = opening or Opening()
        self.paths = named(indexes)
        if not self.paths:
            raise InputError("There is no index to serve", expected="at least one")
        self._manifests: dict[str, tuple[int, Manifest]] = {}
        for name in self.paths:
            self.manifest(name)  # what is no index is said at once
        self.query_sets, self.boards = dict(query_sets or {}), dict(boards or {})
        self.extra: dict[str, Any] = {}  # what other parts of the server keep here, by their name
        self._trusted: set[str] = set()
        self._here = threading.local()
        self._modelled: dict[str, Served] = {}  # the lane "model" alone touches it
        self._scores: Kept[Array] = Kept(SCORES_BYTES, lambda one: one.nbytes)
        self._answers: Kept[tuple[str, str | None]] = Kept(
            ANSWERS_CHARACTERS, lambda one: len(one[0])
        )
        self._requests: Kept[dict[str, Any]] = Kept(REQUESTS_CHARACTERS, _characters)
        self._run: TrainingRun | None = None

    # -- indexes and models ---------------------------------------------------------------

    @contextmanager
    def working(self, lane: Lane) -> Generator[None]:
        """This thread works for a lane."""
        self._here.lane = lane
        try:
            yield
        finally:
            self._here.lane = None

    @property
    def lane(self) -> Lane:
        """Of this thread."""
        return getattr(self._here, "lane", None) or "reader"

    def path(self, name: str) -> Path:
        """The folder of an index; raises Missing for a name that is not served."""
        if name not in self.paths:
            raise Missing(
                "There is no such index here", expected=", ".join(self.paths), found=name[:200]
            )
        return self.paths[name]

    def stamp(self, name: str) -> int:
        """When the index was last written."""
        try:
            return (self.path(name) / "manifest.json").stat().st_mtime_ns
        except OSError:
            return 0  # it is gone; what is open still reads

    def manifest(self, name: str) -> Manifest:
        """What the index says of itself now."""
        stamp = self.stamp(name)
        if name not in self._manifests or stamp not in (0, self._manifests[name][0]):
            self._manifests[name] = (stamp, read_manifest(self.path(name)))
        return self._manifests[name][1]

    def index(self, name: str) -> Served:
        """The index for this thread."""
        path = self.path(name)
        held: dict[str, Served]
        if self.lane == "model":
            held = self._modelled
        else:
            held = self._here.__dict__.setdefault("indexes", {})
        stamp = self.stamp(name)
        if name not in held or stamp not in (0, held[name].stamp):  # it may have grown since
            made = Served(path, read_manifest(path), None)
            made.stamp = stamp
            if self.lane == "model":
                made.loader = lambda index: self._load(name, index)
            self._manifests[name], held[name] = (stamp, made.manifest), made
        return held[name]

    def warming(self, lane: Lane) -> Iterator[None]:
        """What a thread of the lane does while nothing else is to do: a step at a time.

        What first questions would wait for: modules, ids, and evidence that was built before.
        """
        if lane == "model":
            if all(self.model(name)[0] == "none" for name in self.paths):
                return
            for module in ("headwater.methods.trackstar", "headwater.tasks.load", "transformers"):
                importlib.import_module(module)
                yield
            return
        for name in self.paths:
            index = self.index(name)
            yield
            _ = index.examples.id_order
            yield
            for kind in WARMED:
                if has_current(index, kind):
                    with suppress(HeadwaterError, OSError):
                        _warm(index, kind)
                    yield

    def set_names(self) -> list[str]:
        """Of the query sets, those that were uploaded among them."""
        sets = self.extra.get("query_sets")
        return sorted(self.query_sets if sets is None else sets.names())

    def model(self, name: str) -> tuple[ModelState, str | None, str | None]:
        """State, name and note of an index's model."""
        other, trusted = self.opening.model, self.opening.trust_model or name in self._trusted
        state, called, note = model_of(
            self.path(name), self.manifest(name), other=other, trusted=trusted
        )
        held = self._modelled.get(name)
        if state == "known" and held is not None and held.loaded is not None:
            state = "ready"
        return state, called, note

    def trust(self, name: str) -> None:
        """Somebody said yes to the model that this index names."""
        self.path(name)
        self._trusted.add(name)

    def _load(self, name: str, index: Served) -> Task:
        """The index's model; the former goes first, so that two are never in memory."""
        state, _, note = self.model(name)
        if state in ("ask", "none"):
            todo = "allow it in the page, or start the server with --trust-model"
            raise InputError(
                f"The model of {name} is not loaded: {note}", do=todo if state == "ask" else None
            )
        mine = index.manifest["task"], index.manifest["source"]
        for other in self._modelled.values():
            theirs = other.manifest["task"], other.manifest["source"]
            if other.loaded is not None and mine == theirs:
                return other.loaded
        for other in self._modelled.values():
            other.let_go()
        gc.collect()
        return self._load_now(index)

    def _load_now(self, index: Served) -> Task:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.opening.threads is not None:
            torch.set_num_threads(self.opening.threads)
        options: dict[str, Any] = {}
        if self.opening.device is not None:
            options["device"] = self.opening.device
        if self.opening.trust_remote_code:
            options["trust_remote_code"] = True
        model = self.opening.model
        if model is not None and Path(model).is_dir():
            model = str(Path(model).resolve())
        return index.load_own(model, trusted=True, **options)

    # -- methods and scores ---------------------------------------------------------------

    def method(self, name: str | None) -> Method | None:
        """A method by its name, told of the training run where it takes one; None = the usual.

        Raises:
            InputError: when there is none of this name, or it lacks what the server was not given.
        """
        if name is None:
            return None
        light = method_of_texts(name)
        if light is not None:
            return light
        from headwater.evidence.rankers import METHODS, method_by_name, parts_of, takes

        parts = [part for part in parts_of(name) if part in METHODS]
        given: dict[str, Any] = {"run": self.run, "base": self.opening.base}
        options = {
            option: str(value) if isinstance(value, Path) else value
            for option, value in given.items()
            if value is not None and any(takes(part, option) for part in parts)
        }
        return method_by_name(name, **options)

    @property
    def run(self) -> TrainingRun | None:
        """The training run that the server was given."""
        if self._run is None and self.opening.run is not None:
            from headwater.training.run import TrainingRun

            self._run = TrainingRun.open(self.opening.run)
        return self._run

    def scores(
        self, name: str, query: Query, method: str | None = None, options: Any = None
    ) -> Array:
        """The score of every example, float32 [examples]; NaN for those that take no part.

        Args:
            method: a method's name, or "lexical", "verbatim", "semantic"; None = TrackStar.
            options: {"where": (metadata column, values)}, only examples of these groups;
                {"filter": text}, only those that pass.

        Raises:
            InputError: for what does not fit the index.
        """
        key = self.score_key(name, query, method, options)
        found = self._scores.get(key)
        if found is None:
            found = self._score(name, query, method, dict(options or {}))
            found.setflags(write=False)
            self._scores.put(key, found)
        return found

    def score_key(
        self, name: str, query: Query, method: str | None = None, options: Any = None
    ) -> str:
        """A name for the score vector, by which it can be had again for a while."""
        asked: dict[str, Any] = {
            "index": name,
            "query": [query.prompt, query.completion, query.instead_of, query.words],
            "method": method or "trackstar",
            "options": dict(options or {}),
            "stamp": self.stamp(name),
        }
        key = digest(asked)
        self._requests.put(
            key, {"name": name, "query": query, "method": method, "options": options}
        )
        return key

    def scores_request(self, key: str) -> dict[str, Any]:
        """The arguments of `scores` for a key.

        Raises:
            Missing: for a key that is not known (any more).
        """
        found = self._requests.get(key)
        if found is None:
            raise Missing("These scores are not known any more", do="ask the question again")
        return found

    def scores_lane(self, method: str | None) -> Lane:
        """Where scores of a method are worked out."""
        return "reader" if method in ("lexical", "bm25", VERBATIM) else "model"

    def _score(self, name: str, query: Query, method: str | None, options: dict[str, Any]) -> Array:
        from headwater.answer.kinds import reader
        from headwater.evidence.passing import narrowed
        from headwater.index.selection import selected
        from headwater.methods.scoring import scores

        index = self.index(name)
        where = options.get("where")
        among = narrowed(index, selected(index, None, where), options.get("filter"))
        if method == VERBATIM or method in RANKED:
            return np.array(reader(index, method, None, among, None).scores(query), np.float32)
        made = scores(index, query, method=self.method(method), groups=where)[0]
        return made if among is None else np.where(among, made, np.float32(np.nan))

    # -- what was asked before ------------------------------------------------------------

    def known(self, kind: str, asked: BaseModel) -> str | None:
        """The result of the same work, as JSON, where it was done before."""
        found = None if kind in NOT_KEPT else self._answers.get(self._request(kind, asked))
        if found is None or (found[1] is not None and self._requests.get(found[1]) is None):
            return None  # it would name scores that can't be had any more
        return found[0]

    def once(
        self, kind: str, asked: BaseModel, work: Callable[[Tell], dict[str, Any]]
    ) -> Callable[[Tell], str]:
        """`work` that gives back JSON, and remembers it."""

        def done(tell: Tell) -> str:
            found = self.known(kind, asked)  # by one who stood before it in the queue
            if found is None:
                made = work(tell)
                found = as_json(made)
                if kind not in NOT_KEPT:
                    key = made.get("scores") if kind == "ask" else None
                    known = key if isinstance(key, str) else None
                    self._answers.put(self._request(kind, asked), (found, known))
            return found

        return done

    def _request(self, kind: str, asked: BaseModel) -> str:
        """What was asked, and when the indexes were last written."""
        stamps = [self.stamp(name) for name in self.paths]
        return digest([kind, asked.model_dump(mode="json"), stamps])


def _warm(index: Served, kind: str) -> None:
    """Open evidence that lies ready, by asking for something small."""
    from headwater.answer.kinds import reader
    from headwater.tasks.query import Query

    one = reader(index, kind, None, None, None)
    one.scores(Query("", "the"))


def _characters(request: dict[str, Any]) -> int:
    query: Query = request["query"]
    texts = [query.prompt, query.completion, query.instead_of, request["options"]]
    return 500 + sum(len(str(text)) for text in texts)


def digest(value: Any) -> str:
    """A short name for what was asked."""
    text = json.dumps(value, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
