"""What presets share: how they are asked for, one cached training, subsets, and claims."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from headwater.engine.errors import HeadwaterError, InputError
from headwater.engine.files import read_json, write_json
from headwater.engine.threads import one_thread
from headwater.evaluation.board import Finding
from headwater.evaluation.candidates import hashed, same
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.training.loop import train
from headwater.training.run import TrainingRun

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.evaluation.candidates import Candidate
    from headwater.evaluation.lds import LDSMetric
    from headwater.evaluation.metric import Metric
    from headwater.tasks.task import Task
    from headwater.training.recipe import Recipe

Array = np.ndarray[Any, Any]
Scale = Literal["full", "tiny"]


@dataclass(frozen=True)
class Asked:
    """How a preset is asked for.

    Args:
        cache: folder of what is kept. scale: "full", or "tiny" (seconds; its figures say nothing).
        seed: of all that is drawn. workers: processes that train side by side; None = the cores.
        methods, metrics: names of those that are wanted beside the controls; None = all.
    """

    cache: Path
    scale: Scale = "full"
    seed: int = 0
    workers: int | None = None
    methods: Sequence[str] | None = None
    metrics: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the preset."""
        if self.scale not in ("full", "tiny"):
            raise InputError("Unknown scale", expected="full or tiny", found=self.scale)
        if self.seed < 0:
            raise InputError("A seed is 0 or more", found=self.seed)
        if self.workers is not None and self.workers < 1:
            raise InputError("workers is too small", expected="at least 1", found=self.workers)

    @property
    def tiny(self) -> bool:
        """Whether this only shows that it runs."""
        return self.scale == "tiny"

    def chosen_methods(
        self, all_of_them: Sequence[Candidate], controls: Sequence[Candidate]
    ) -> list[Candidate]:
        """Those asked for, and the controls, which stand on every board."""
        return [*_named("method", all_of_them, self.methods, controls), *controls]

    def chosen_metrics(self, all_of_them: Sequence[Metric]) -> list[Metric]:
        """Those asked for."""
        return _named("metric", all_of_them, self.metrics)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_T = TypeVar("_T", bound=_Named)


def _named(
    what: str, items: Sequence[_T], wanted: Sequence[str] | None, always: Sequence[_T] = ()
) -> list[_T]:
    if wanted is None:
        return list(items)
    known = [one.name for one in (*items, *always)]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise InputError(
            f"This preset has no such {what}",
            expected=", ".join(known),
            found=", ".join(unknown) or "none",
        )
    return [one for one in items if one.name in wanted]


def trained_once(
    task: Task, corpus: Corpus, recipe: Recipe, cache: Path
) -> tuple[TrainingRun, float]:
    """The run of this training, and its seconds; the task's model is left at its end.

    Args:
        task: holds the weights before the training. cache: where runs are kept.
    """
    from headwater.index.corpus_shards import fingerprint

    told = {"recipe": recipe.to_json(), "corpus": fingerprint(corpus), "task": task.describe()}
    folder = cache / "runs" / hashed(told)
    done = folder / "seconds.json"
    if not _whole(folder, done):
        ends: list[float] = []
        with one_thread():
            train(
                task,
                corpus,
                recipe,
                out=folder,
                on_step=lambda *_: ends.append(time.perf_counter()),
            )
        # The first step also loads what torch needs: it counts as the mean of the others.
        steps = len(ends)
        write_json(done, (ends[-1] - ends[0]) * steps / max(1, steps - 1))
    run = TrainingRun.open(folder)
    run.checkpoints[-1].load_into(task.model)
    return run, float(read_json(done))


def _whole(folder: Path, done: Path) -> bool:
    """Whether a run is there and can be read; what is damaged is trained again."""
    try:
        read_json(done)
        return bool(TrainingRun.open(folder).checkpoints)
    except HeadwaterError:
        return False


def initial_state(task: Task) -> dict[str, Any]:
    """A copy of the task's present weights."""
    return {name: value.detach().clone() for name, value in task.model.state_dict().items()}


def figure(figures: Mapping[str, Figures], method: str, column: str) -> Estimate | None:
    """A figure of the board, if it is there."""
    found = figures.get(method, {}).get(column)
    return found if isinstance(found, Estimate) else None


def at_least(
    figures: Mapping[str, Figures], method: str, title: str, column: str, least: float
) -> Finding:
    """The claim that a figure reaches a value; it holds when the figure itself does."""
    claim = f"{title}: {column} is at least {least:g}"
    found = figure(figures, method, column)
    if found is None:
        return Finding(claim, None, "no figure")
    return Finding(claim, found.value >= least, shown(found))


def contains_zero(
    figures: Mapping[str, Figures], column: str, shown_as: str | None = None
) -> Finding:
    """The claim that the interval of random scores contains 0."""
    claim = f"Random: the interval of {shown_as or column} contains 0"
    found = figure(figures, "random", column)
    if found is None:
        return Finding(claim, None, "no figure")
    return Finding(claim, found.low <= 0 <= found.high, shown(found))


def above(claim: str, one: Estimate, other: Estimate) -> Finding:
    """The claim that a figure is above another; told only where their intervals are apart."""
    told = f"{shown(one)} and {shown(other)}"
    if one.low > other.high or other.low > one.high:
        return Finding(claim, one.low > other.high, f"{told}; intervals apart")
    return Finding(claim, None, f"{told}; intervals overlap")


def order(
    metric: LDSMetric,
    scored: Mapping[str, Scored],
    names: Sequence[tuple[str, str]],
) -> Finding:
    """Whether methods follow each other on a bank: "a > b" by an interval above 0.

    ">=" holds unless the interval of the difference lies below 0.

    Args:
        names: each method with the sign (">" or ">=") between it and the next, or "".
    """
    titles = [scored[name].title if name in scored else name for name, _ in names]
    claim = f"{metric.label}: " + " ".join(
        f"{title} {sign}".strip() for title, (_, sign) in zip(titles, names, strict=True)
    )
    held: list[bool] = []
    told: list[str] = []
    for place, (name, sign) in enumerate(names[:-1]):
        after = names[place + 1][0]
        if name not in scored or after not in scored:
            return Finding(claim, None, f"{name if name not in scored else after} has no scores")
        found = metric.difference(scored[after].scores, scored[name].scores)
        held.append(found.low > 0 if sign == ">" else found.high >= 0)
        kind = "holds" if held[-1] else "reversed" if found.high < 0 else "not told apart"
        told.append(f"{titles[place]} - {titles[place + 1]} {shown(found, signed=True)}: {kind}")
    # What was not told apart speaks neither for the order nor against it.
    holds = True if all(held) else False if any("reversed" in one for one in told) else None
    return Finding(claim, holds, "; ".join(told))


def shown(one: Estimate, *, signed: bool = False) -> str:
    """Such as 0.412 (0.380 to 0.441)."""
    sign = "+" if signed else ""
    return f"{one.value:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"


class Part:
    """A part of a metric: the first queries only, where each costs trainings, or some columns.

    Args:
        metric: it is given no scores of the other queries. queries: None = all.
        keep: columns of the metric; None = all. label: put before the names of the columns.
    """

    def __init__(
        self,
        metric: Metric,
        queries: int | None = None,
        keep: Sequence[str] | None = None,
        label: str = "",
    ) -> None:
        self.metric, self.queries, self.name = metric, queries, metric.name
        self.bank: Any = getattr(metric, "bank", None)
        kept = list(metric.columns) if keep is None else list(keep)
        self._headings = {column: f"{label} {column}".strip() for column in kept}

    @property
    def columns(self) -> Mapping[str, str]:
        """The metric's own, as far as they are kept."""
        return {name: self.metric.columns[column] for column, name in self._headings.items()}

    def measure(self, scored: Scored) -> Figures:
        """The metric's figures on these queries."""
        scores = scored.scores
        if self.queries is not None:
            scores = scores.copy()
            scores[self.queries :] = np.nan
        found = self.metric.measure(replace(scored, scores=scores))
        return {name: found[column] for column, name in self._headings.items()}

    def notes(self) -> list[str]:
        """The metric's own, and how many queries."""
        notes: Any = getattr(self.metric, "notes", list)
        own = list(notes())
        if self.queries is not None:
            own.append(f"{self.name}: the first {self.queries} queries.")
        return own

    def describe(self) -> dict[str, Any]:
        """The metric's own, and which part."""
        describe: Any = getattr(self.metric, "describe", None)
        own = None if describe is None else describe()
        return {"queries": self.queries, "keep": self._headings, "of": own}


class AgreementWith:
    """Agreement of every method with one of the board's own, which the board gives it.

    Args:
        method, title: its name and title. make: the metric of its scores.
    """

    def __init__(self, method: str, title: str, make: Callable[[Array], Metric]) -> None:
        self.compared_with, self.title, self.make = method, title, make
        self.name = method
        self.metric: Metric | None = None
        self._against = ""
        self._columns = {
            f"{column} with {title}": told
            for column, told in make(np.zeros((1, 2))).columns.items()
        }

    @property
    def columns(self) -> Mapping[str, str]:
        """The metric's own."""
        return self._columns

    def take(self, scores: Array) -> None:
        """The scores of the method that others are compared with."""
        self.metric, self._against = self.make(scores), same(scores)

    def measure(self, scored: Scored) -> Figures:
        """The metric's figures; the method itself is not compared."""
        if scored.name == self.compared_with:
            return dict.fromkeys(self.columns, "is what the others are compared with")
        if self.metric is None:
            return dict.fromkeys(self.columns, f"{self.compared_with} has no scores")
        found = self.metric.measure(scored)
        return {name: found[name.removesuffix(f" with {self.title}")] for name in self.columns}

    def describe(self) -> dict[str, Any]:
        """What it is compared with."""
        return {"with": self.compared_with, "scores": self._against}
