"""The board of a user's own index: methods on the features that it has, judged as far as it can be.

Nothing is built again: what a method costs here is scoring alone. Self-influence is asked for only
where rows are looked for by it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.files import make_folder
from headwater.engine.memory import PeakMemory, resident
from headwater.evaluation.board import Board, Setting, board
from headwater.evaluation.candidates import Candidate, Cost, Outcome, size
from headwater.evaluation.named_metrics import Means, named_metrics
from headwater.evaluation.retraining import documents_of
from headwater.methods.scoring import scores, self_influence

if TYPE_CHECKING:
    from headwater.evaluation.query_sets import QueryItem
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query
    from headwater.training.run import TrainingRun
    from headwater.training.visit import Place

Array = np.ndarray[Any, Any]


class IndexScoring:
    """Scores candidates on an index that is there.

    Args:
        index, queries: what is asked. own: self-influence, too.
    """

    def __init__(self, index: Index, queries: Sequence[Query], *, own: bool) -> None:
        self.index, self.queries, self.own = index, list(queries), own

    def score(self, candidate: Candidate) -> Outcome:
        """What the candidate says.

        Raises:
            HeadwaterError: whatever keeps the method from scoring.
        """
        method, device = candidate.make(), self.index.task.device
        before, kept, clock = resident(), size(self.index.path), time.perf_counter()
        with PeakMemory(device) as peak:
            found = scores(self.index, self.queries, method=method)
        seconds = round(time.perf_counter() - clock, 3)
        memory = max(0, peak.bytes - (before if device.type == "cpu" else 0))
        cost = Cost(seconds, memory, max(0, size(self.index.path) - kept))
        own = self._own(method) if self.own else None
        return Outcome(found, own, cost, method.describe())

    def _own(self, method: Method) -> Array | None:
        try:
            return self_influence(self.index, method=method)
        except HeadwaterError:  # it has none
            return None


def index_board(
    index: Index,
    items: Sequence[QueryItem],
    methods: Mapping[str, Method],
    metrics: Sequence[str] | None = None,
    *,
    cache: str | Path,
    run: TrainingRun | None = None,
    base: Place | None = None,
    wanted: tuple[str, str] | None = None,
    **options: Any,
) -> Board:
    """Judge methods on an index.

    Args:
        index: with its model. items: what is asked, with gold ids where they are known.
        methods: by the names of their rows.
        metrics: names in `named_metrics.METRICS`; None = all that cost no training.
        cache: folder that keeps figures and retrained models' losses.
        run, base: of the training, for metrics that train again.
        wanted: COLUMN, VALUE of rows to be detected by self-influence.
        options: the others of `Means`: subsets, seeds, top, workers, learning_rate, seed.

    Raises:
        InputError: for no query or method, and for a metric whose needs are not met.
    """
    for what, given in (("query", items), ("method", methods)):
        if not given:
            raise InputError(f"There is no {what}", expected="at least one")
    folder = Path(cache).resolve()
    make_folder(folder)
    means = Means(index, items, methods, folder, run, base, wanted, **options)
    columns = named_metrics(metrics, means)
    rows = [
        Candidate(name, method.title, partial(_same, method)) for name, method in methods.items()
    ]
    setting = Setting(
        index.path.name,
        _told(index, means),
        folder,
        index.task,
        documents_of(index),
        means.queries,
        rows,
        columns,
        {"recipe": None if run is None or run.recipe is None else run.recipe.to_json()},
        notes=("Costs are of scoring on the index as it is; its features were built before.",),
    )
    own = any(metric.name == "detection" for metric in columns)
    return board(setting, IndexScoring(index, means.queries, own=own))


def _same(method: Method) -> Method:
    return method


def _told(index: Index, means: Means) -> dict[str, Any]:
    """What decides the board, beside methods and metrics."""
    return {
        "index": index.path.name,
        "examples": len(index),
        "model": index.manifest["task"],
        "features": index.manifest.get("features"),
        "queries": [query.describe() for query in means.queries],
        "seed": means.seed,
    }
