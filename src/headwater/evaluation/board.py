"""A board: every method judged by every metric, with what it cost; one table for any setting.

A setting names all that decides the table, and the same seed gives the same table but for the
costs. Whatever was found before (trained models, scores, figures) is taken from the cache, so a
board that was stopped goes on, and one that was finished is there in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headwater.engine.errors import DamageError, HeadwaterError, InputError
from headwater.engine.files import read_json, write_json
from headwater.engine.progress import Progress
from headwater.evaluation.board_checks import check
from headwater.evaluation.candidates import Candidate, Cost, Outcome, Scoring, code, hashed, same
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Metric, Scored

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task

Array = np.ndarray[Any, Any]

JUDGING = ("engine", "evaluation")  # code that figures depend on beside the scores


@dataclass(frozen=True)
class Finding:
    """A claim about a board, and what the figures say to it.

    Args:
        claim: in a sentence. holds: whether; None = cannot be told. figures: behind it, in words.
    """

    claim: str
    holds: bool | None
    figures: str


class Scores(Protocol):
    """Says what candidates score."""

    def score(self, candidate: Candidate) -> Outcome:
        """What the candidate says."""
        ...


Findings = Callable[[Mapping[str, Scored], Mapping[str, Figures]], list[Finding]]


@dataclass(frozen=True)
class Setting:
    """All that decides a board.

    Args:
        name: of the preset. recipe: everything in JSON, as it is written beside the table.
        cache: folder of what is kept.
        task, corpus, queries: the trained model, its data, what is asked of it.
        methods, metrics: rows and columns.
        training: what decides the trained model, JSON. training_seconds: of one such training, on
            one thread: the unit of the costs.
        headline: the column that the chart shows; None = the first.
        findings: claims that the board is asked for, from the scores and figures by method.
        notes: to be read beside the table.
    """

    name: str
    recipe: Mapping[str, Any]
    cache: Path
    task: Task
    corpus: Corpus
    queries: Sequence[Query]
    methods: Sequence[Candidate]
    metrics: Sequence[Metric]
    training: Mapping[str, Any]
    training_seconds: float | None = None
    headline: str | None = None
    findings: Findings | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A method on a board.

    Args:
        name, title, given: as in `Candidate`. parameters: of the method, JSON.
        figures: by column; a str says why there is none. cost: None where it did not score.
    """

    name: str
    title: str
    given: tuple[str, ...]
    parameters: Mapping[str, Any]
    figures: Figures
    cost: Cost | None


@dataclass(frozen=True)
class Board:
    """The table.

    Args:
        preset, recipe: what it is of. columns: each with a sentence.
        rows: methods. findings, notes: beside the table.
        training_seconds: of one training. headline: column of the chart.
    """

    preset: str
    recipe: Mapping[str, Any]
    columns: Mapping[str, str]
    rows: Sequence[Row]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    training_seconds: float | None = None
    headline: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def trainings(self, row: Row) -> float | None:
        """Cost of a row in trainings of the model."""
        if row.cost is None or not self.training_seconds:
            return None
        return row.cost.seconds / self.training_seconds

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        made = asdict(self)
        for row, told in zip(self.rows, made["rows"], strict=True):
            told["trainings"] = self.trainings(row)
        return made

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Board:
        """The reverse of `to_dict`.

        Raises:
            DamageError: when it is not that.
        """
        try:
            rows = [_row(row) for row in values["rows"]]
            findings = [Finding(**one) for one in values["findings"]]
            rest = {k: v for k, v in values.items() if k not in ("rows", "findings")}
            return cls(rows=rows, findings=findings, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise DamageError("This is no board", expected="board.json", found=error) from error


def board(setting: Setting, scoring: Scores | None = None) -> Board:
    """Score every method, measure it by every metric, and put it all in one table.

    Args:
        setting: the rows and columns.
        scoring: who scores; None = each method in a process and an index of its own.

    Raises:
        InputError: when methods or metrics are named twice, or a bank is of another training.
    """
    check(setting)
    own = any(metric.name == "detection" for metric in setting.metrics)
    scoring = scoring or Scoring(
        setting.cache, setting.task, setting.corpus, setting.queries, setting.training, own=own
    )
    found = _scored(setting, scoring)
    judged = _judged(setting, found)
    rows: list[Row] = []
    for candidate in setting.methods:
        said = found[candidate.name]
        parameters, cost = ({}, None) if isinstance(said, str) else (said.parameters, said.cost)
        part = judged[candidate.name]
        rows.append(Row(candidate.name, candidate.title, candidate.given, parameters, part, cost))
    columns = {name: told for metric in setting.metrics for name, told in metric.columns.items()}
    return Board(
        setting.name,
        setting.recipe,
        columns,
        rows,
        _findings(setting, found, judged),
        [*setting.notes, *_metric_notes(setting)],
        setting.training_seconds,
        setting.headline or next(iter(columns)),
    )


def joined(preset: str, parts: Mapping[str, Board]) -> Board:
    """Boards of the same methods side by side: their columns under names of their own.

    A method's cost is the sum over the boards; parameters are those of each.
    """
    names = list(dict.fromkeys(row.name for one in parts.values() for row in one.rows))
    rows: list[Row] = []
    for name in names:
        mine = {k: r for k, one in parts.items() for r in one.rows if r.name == name}
        first = next(iter(mine.values()))
        figures = {f"{k}: {c}": f for k, row in mine.items() for c, f in row.figures.items()}
        costs = [row.cost for row in mine.values() if row.cost is not None]
        total = Cost(
            sum(one.seconds for one in costs),
            max((one.memory for one in costs), default=0),
            sum(one.disk for one in costs),
        )
        told = {k: dict(row.parameters) for k, row in mine.items()}
        cost = total if len(costs) == len(parts) else None
        rows.append(Row(name, first.title, first.given, told, figures, cost))
    first = next(iter(parts.values()))
    seconds = [one.training_seconds for one in parts.values()]
    return Board(
        preset,
        {"preset": preset, "scale": first.recipe.get("scale"), "seed": first.recipe.get("seed")}
        | {k: dict(one.recipe) for k, one in parts.items()},
        {f"{k}: {c}": told for k, one in parts.items() for c, told in one.columns.items()},
        rows,
        [finding for one in parts.values() for finding in one.findings],
        [f"{k}: {note}" for k, one in parts.items() for note in one.notes],
        None if None in seconds else sum(one or 0.0 for one in seconds),
        f"{next(iter(parts))}: {first.headline}",
    )


def _scored(setting: Setting, scoring: Scores) -> dict[str, Outcome | str]:
    """What each method said, or why it said nothing."""
    found: dict[str, Outcome | str] = {}
    with Progress("methods", len(setting.methods), "methods") as progress:
        for candidate in setting.methods:
            try:
                found[candidate.name] = scoring.score(candidate)
            except HeadwaterError as error:
                found[candidate.name] = str(error)
            progress.advance(1, candidate.title)
    return found


def _judged(setting: Setting, found: Mapping[str, Outcome | str]) -> dict[str, Figures]:
    """The figures of each method by column."""
    judged: dict[str, dict[str, Estimate | str]] = {one.name: {} for one in setting.methods}
    total = len(setting.metrics) * len(setting.methods)
    with Progress("metrics", total, "figures") as progress:
        for metric in setting.metrics:
            _tell(metric, found)
            for candidate in setting.methods:
                said = found[candidate.name]
                if isinstance(said, Outcome):
                    judged[candidate.name] |= _measured(setting, metric, candidate, said)
                else:
                    judged[candidate.name] |= dict.fromkeys(metric.columns, said)
                progress.advance(1, metric.name)
    return {name: {**figures} for name, figures in judged.items()}


def _tell(metric: Metric, found: Mapping[str, Outcome | str]) -> None:
    """Give a metric that compares with one of the methods what that one said."""
    name: str | None = getattr(metric, "compared_with", None)
    said = None if name is None else found.get(name)
    if isinstance(said, Outcome):
        take: Any = getattr(metric, "take", None)
        take(said.scores)


def scored(candidate: Candidate, said: Outcome) -> Scored:
    """An outcome as metrics take it."""
    own = None if said.own is None else partial(_given, said.own)
    return Scored(candidate.name, candidate.title, said.scores, own)


def _given(values: Array) -> Array:
    return values


def _measured(
    setting: Setting, metric: Metric, candidate: Candidate, said: Outcome
) -> dict[str, Estimate | str]:
    """A metric's figures of one method, taken from the cache or worked out now."""
    held = {"scores": same(said.scores), "own": same(said.own), "name": candidate.name}
    path = setting.cache / "figures" / f"{hashed({**_told(setting, metric), **held})}.json"
    kept = _kept(path)
    if kept is not None:
        return {name: _figure(value) for name, value in kept.items()}
    try:
        made = dict(metric.measure(scored(candidate, said)))
    except HeadwaterError as error:
        return dict.fromkeys(metric.columns, str(error))
    if set(made) != set(metric.columns):
        raise InputError(
            f"The metric {metric.name} gave other columns than it has",
            expected=", ".join(metric.columns),
            found=", ".join(made),
        )
    made = {name: _finite(value) for name, value in made.items()}
    write_json(path, {name: v if isinstance(v, str) else asdict(v) for name, v in made.items()})
    return made


def _finite(value: Estimate | str) -> Estimate | str:
    if isinstance(value, str) or all(np.isfinite([value.value, value.low, value.high])):
        return value
    return "not a number"


def _told(setting: Setting, metric: Metric) -> dict[str, Any]:
    """What decides a metric's figures beside the scores."""
    describe: Any = getattr(metric, "describe", None)
    return {
        "recipe": setting.recipe,
        "metric": metric.name,
        "described": None if describe is None else describe(),
        "code": code(JUDGING),
    }


def _metric_notes(setting: Setting) -> list[str]:
    """What the metrics have to say, which may need the whole bank; kept as the figures are."""
    made: list[str] = []
    for metric in setting.metrics:
        notes: Callable[[], list[str]] | None = getattr(metric, "notes", None)
        if notes is None:
            continue
        told = {**_told(setting, metric), "what": "notes"}
        path = setting.cache / "figures" / f"{hashed(told)}.json"
        kept = _kept(path)
        if kept is None:
            try:
                kept = notes()
            except HeadwaterError as error:
                made.append(f"{metric.name}: {error}")
                continue
            write_json(path, kept)
        made += kept
    return made


def _findings(
    setting: Setting, found: Mapping[str, Outcome | str], judged: Mapping[str, Figures]
) -> list[Finding]:
    """The claims, kept as the figures are."""
    if setting.findings is None:
        return []
    said = {
        one.name: scored(one, outcome)
        for one in setting.methods
        if isinstance(outcome := found[one.name], Outcome)
    }
    seen = {name: same(one.scores) for name, one in said.items()}
    metrics = [_told(setting, metric) for metric in setting.metrics]
    told = {"recipe": setting.recipe, "code": code(JUDGING), "scores": seen, "metrics": metrics}
    path = setting.cache / "figures" / f"{hashed({**told, 'what': 'findings'})}.json"
    kept = _kept(path)
    if kept is None:
        kept = [asdict(one) for one in setting.findings(said, judged)]
        write_json(path, kept)
    return [Finding(**one) for one in kept]


def _kept(path: Path) -> Any:
    """What was kept there; None where there is nothing, or damage: it is made again."""
    try:
        return read_json(path) if path.exists() else None
    except DamageError:
        return None


def _figure(value: Any) -> Estimate | str:
    return value if isinstance(value, str) else Estimate(**value)


def _row(values: Mapping[str, Any]) -> Row:
    return Row(
        values["name"],
        values["title"],
        tuple(values["given"]),
        values["parameters"],
        {name: _figure(value) for name, value in values["figures"].items()},
        None if values["cost"] is None else Cost(**values["cost"]),
    )
