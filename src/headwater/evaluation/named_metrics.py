"""What a user's own index can be judged by: each metric by its name, with what it needs.

Retrieval needs gold ids, tail-patch the model, detection a column that names the rows looked for;
the others train again, and need a run of headwater's own loop with the weights before it. All that
train share one bank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headwater.engine.errors import InputError
from headwater.evaluation.agreement import Agreement
from headwater.evaluation.bank import Bank
from headwater.evaluation.brittleness import Brittleness
from headwater.evaluation.detection import DetectionMetric
from headwater.evaluation.false_attribution import FalseAttribution, Rule
from headwater.evaluation.lds import LDSMetric
from headwater.evaluation.metric import Metric
from headwater.evaluation.removal import Removal
from headwater.evaluation.retraining import trainer_of_run
from headwater.evaluation.retrieval import RetrievalMetric
from headwater.evaluation.subsets import left_out
from headwater.evaluation.tail_patch import TailPatch
from headwater.methods.magic import MAGICOfRun
from headwater.methods.scoring import scores
from headwater.training.next_step import next_step

if TYPE_CHECKING:
    from headwater.evaluation.query_sets import QueryItem
    from headwater.index.index import Index
    from headwater.methods.method import Method
    from headwater.tasks.query import Query
    from headwater.training.run import TrainingRun
    from headwater.training.visit import Place

FIXED = 0.05  # of the examples that a fixed trial weighs zero


@dataclass(frozen=True)
class Means:
    """What there is to judge with.

    Args:
        index, items: what is asked, with gold ids where they are known.
        methods: by the names of their rows.
        cache: folder of retrained models' losses and of tail patches.
        run, base: of the training, for what trains again.
        wanted: COLUMN, VALUE of the rows that should have much self-influence.
        subsets, seeds: of LDS. top: documents left out, or stepped on. workers: None = the cores.
        learning_rate: of a tail patch's step; None = the run's. seed: of all that is drawn.
    """

    index: Index
    items: Sequence[QueryItem]
    methods: Mapping[str, Method]
    cache: Path
    run: TrainingRun | None = None
    base: Place | None = None
    wanted: tuple[str, str] | None = None
    subsets: int = 32
    seeds: int = 2
    top: int = 5
    workers: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    @cached_property
    def queries(self) -> list[Query]:
        """What is asked."""
        return [item.query() for item in self.items]

    @cached_property
    def bank(self) -> Bank:
        """Of retrained models.

        Raises:
            InputError: without a run and the weights before it.
        """
        run, base = self.training("train again")
        return Bank(self.cache, trainer_of_run(self.index, self.queries, run, base), self.workers)

    def training(self, what: str) -> tuple[TrainingRun, Place]:
        """The run and the weights before it.

        Raises:
            InputError: where one is lacking, naming `what` cannot be done.
        """
        if self.run is None or self.base is None:
            lacking = "run" if self.run is None else "base"
            raise InputError(
                f"To {what}, the training and the weights before it are needed",
                expected="a run of headwater's own loop, and the base model",
                found=f"no {lacking}",
                do=f"give {lacking}= (--{lacking} FOLDER)",
            )
        return self.run, self.base


def _lds(means: Means) -> Metric:
    halves = left_out(len(means.index), means.subsets, 0.5, means.seed)
    return LDSMetric(means.bank, halves, range(means.seeds), seed=means.seed)


def _fixed(means: Means) -> Metric:
    few = left_out(len(means.index), means.subsets, FIXED, means.seed)
    label = "LDS, fixed"
    return LDSMetric(
        means.bank, few, (0,), kind="fixed", name="lds-fixed", label=label, seed=means.seed
    )


def _retrieval(means: Means) -> Metric:
    gold = [item.gold for item in means.items]
    if not all(gold):
        raise InputError(
            "Retrieval needs the documents that are right",
            expected="gold: a list of ids with every query",
            found=f"{sum(not one for one in gold)} of {len(gold)} queries without",
        )
    return RetrievalMetric(means.index.ids, gold, seed=means.seed)


def _tail_patch(means: Means) -> Metric:
    task = means.index.task
    step = next_step(means.run, task, learning_rate=means.learning_rate)
    gold = [item.gold for item in means.items]
    return TailPatch(
        task,
        means.index,
        step,
        means.queries,
        min(means.top, len(means.index)),
        random=min(means.top, len(means.index)),
        gold=gold if all(gold) else None,
        cache=means.cache,
        seed=means.seed,
    )


def _detection(means: Means) -> Metric:
    if means.wanted is None:
        raise InputError(
            "Detection looks for certain rows",
            expected="a metadata column and the value that they have",
            do="give wanted= (--wanted COLUMN=VALUE)",
        )
    column, value = means.wanted
    groups = means.index.metadata(column)
    wanted = np.array([str(one) == value for one in groups])
    if not wanted.any() or wanted.all():
        known = ", ".join(sorted({str(one) for one in groups})[:5])
        raise InputError(
            f"Nothing to tell apart by {column} = {value}",
            expected=f"a value that some rows have: {known}",
            found=f"{int(wanted.sum())} of {len(wanted)} rows",
        )
    return DetectionMetric(wanted, seed=means.seed)


def _removal(means: Means) -> Metric:
    return Removal(means.bank, range(means.seeds), (means.top,), seed=means.seed)


def _brittleness(means: Means) -> Metric:
    most = max(1, len(means.index) // 2)
    ks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200) if k <= most]
    return Brittleness(means.bank, range(means.seeds), ks, seed=means.seed)


def _false(means: Means) -> Metric:
    rules: dict[str, Method | Rule] = dict(means.methods)
    return FalseAttribution(means.bank, means.queries, rules, means.index, seed=means.seed)


def _magic(means: Means) -> Metric:
    run, base = means.training("find MAGIC's scores")
    gold = scores(means.index, means.queries, method=MAGICOfRun(run, base))
    return Agreement(gold, min(10, len(means.index) - 1), seed=means.seed)


METRICS: dict[str, tuple[str, Callable[[Means], Metric]]] = {
    "retrieval": ("queries with gold ids", _retrieval),
    "tail-patch": ("the model", _tail_patch),
    "detection": ("a column that names the rows looked for", _detection),
    "lds": ("a run and the base model", _lds),
    "lds-fixed": ("a run and the base model", _fixed),
    "removal": ("a run and the base model", _removal),
    "brittleness": ("a run and the base model", _brittleness),
    "false-attribution": ("a run and the base model", _false),
    "magic": ("a run and the base model", _magic),
}


def named_metrics(names: Sequence[str] | None, means: Means) -> list[Metric]:
    """The metrics of these names; None = all that cost no training.

    Raises:
        InputError: for an unknown name, or a metric whose needs are not met.
    """
    if names is None:
        names = [*(["retrieval"] if all(one.gold for one in means.items) else []), "tail-patch"]
        names += ["detection"] if means.wanted is not None else []
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise InputError(
            "There is no such metric",
            expected="; ".join(f"{name} ({needs})" for name, (needs, _) in METRICS.items()),
            found=", ".join(unknown) or "none",
        )
    return [METRICS[name][1](means) for name in names]
