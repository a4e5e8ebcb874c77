"""How hard each example was to learn, read from the checkpoints of a training; for data selection.

Five scores of the literature and the plain loss behind one call. Each has its own file with its
formula; here is what they share: which checkpoints are visited, the comparison within groups, and
the ranking from hard to easy with the part that is kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict, Unpack

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.files import write_atomic

if TYPE_CHECKING:
    from headwater.gradients.features import Features
    from headwater.index.index import Index
    from headwater.methods.outcome_scores import Scored
    from headwater.methods.outcomes import Logits
    from headwater.training.run import Checkpoint, TrainingRun

Score = Literal["vog", "el2n", "forgetting", "pre-memorization", "self-influence", "loss"]
Which = Literal["easiest", "hardest", "middle"]
Array = np.ndarray[Any, Any]

THRESHOLD = 0.1  # nats a token: exp(-2.3), as a notebook of Kang et al. has it for GSM8K


class _Kind(NamedTuple):
    unit: str
    least: int  # checkpoints
    high: bool = True  # high is hard


SCORES: dict[str, _Kind] = {
    "vog": _Kind("standard deviation of the gradient", 2),
    "el2n": _Kind("error norm, mean over tokens", 1),
    "forgetting": _Kind("forgetting events, mean over tokens", 2),
    "pre-memorization": _Kind("accuracy before memorization (low is hard)", 1, high=False),
    "self-influence": _Kind("learning rate x squared gradient", 1),
    "loss": _Kind("mean loss of a token", 1),
}
WHICH = ("easiest", "hardest", "middle")


@dataclass(frozen=True)
class Placed:
    """An example's place, 1 = the hardest; its value; whether it is kept."""

    rank: int
    id: str
    value: float
    keep: bool = True


@dataclass(frozen=True)
class DifficultyResult:
    """Difficulty of every example of an index.

    Args:
        score: its name. unit: of the values.
        ids: of the examples, in the order of the index.
        values: float64 [documents]; NaN for an example whose numbers are not finite.
        by_checkpoint: what they were made of, float32 [checkpoints, documents].
        steps: of the visited checkpoints; None where the run does not know.
        high_is_hard: whether a high value means a hard example.
        notes: what a reader of the values should know.
    """

    score: str
    unit: str
    ids: list[str]
    values: Array
    by_checkpoint: Array
    steps: list[int | None]
    high_is_hard: bool
    notes: list[str] = field(default_factory=list[str])

    @property
    def variance(self) -> Array:
        """Of each example's `by_checkpoint` over the checkpoints, float64 [documents]."""
        return self.by_checkpoint.astype(np.float64).var(axis=0)

    def ranking(self, *, keep: float | None = None, which: Which = "hardest") -> list[Placed]:
        """Examples from the hardest to the easiest, equal ones in the order of their ids.

        Args:
            keep: the share that is marked to be kept; None = all.
            which: "hardest", "easiest", or "middle" (as many left out at either end).

        Raises:
            InputError: for a share or a part that is none.
        """
        if keep is not None and not 0 < keep <= 1:
            raise InputError("keep is a share", expected="above 0, at most 1", found=keep)
        if which not in WHICH:
            raise InputError("Unknown part", expected=" or ".join(WHICH), found=repr(which))
        signed = -self.values if self.high_is_hard else self.values
        order = np.lexsort((np.asarray(self.ids), signed))
        order = order[~np.isnan(self.values[order])]
        count = len(order)
        kept = count if keep is None else max(1, round(keep * count))
        start = {"hardest": 0, "easiest": count - kept, "middle": (count - kept) // 2}[which]
        return [
            Placed(place + 1, self.ids[i], float(self.values[i]), start <= place < start + kept)
            for place, i in enumerate(order.tolist())
        ]

    def save(self, path: str | Path) -> None:
        """JSON Lines: id, value and values by checkpoint of each example, in the index's order."""
        rows = zip(self.ids, self.values.tolist(), self.by_checkpoint.T.tolist(), strict=True)
        lines = [
            json.dumps(
                {"id": name, "value": _plain(value), "by_checkpoint": [_plain(v) for v in row]},
                ensure_ascii=False,
            )
            for name, value, row in rows
        ]
        text = "".join(line + "\n" for line in lines)
        write_atomic(Path(path), lambda temporary: _write(temporary, text))


class Options(TypedDict, total=False):
    """What only some scores ask for.

    exact: forgetting, pre-memorization: an example is right when all its tokens are.
    threshold: pre-memorization: nats a token below which an example counts as memorised.
    log_odds: VoG: of the right token's log-odds instead of its logit.
    inputs: VoG: what is differentiated in, a column of real numbers or a module's name; the token
        embeddings of a language model when left out.
    features, learning_rates: self-influence: in place of the index's and the run's; rates in the
        order in which `checkpoints` names them.
    logits, labels: of a task that is no language model: `logits(model, batch)` gives
        [batch, classes], and the column with the right classes ("y" when left out).
    """

    exact: bool
    threshold: float
    log_odds: bool
    inputs: str | None
    features: Features | None
    learning_rates: Sequence[float] | None
    logits: Logits | None
    labels: str


def difficulty(
    index: Index,
    run: TrainingRun,
    score: Score = "vog",
    *,
    checkpoints: Sequence[int] | None = None,
    by: str | None = None,
    **options: Unpack[Options],
) -> DifficultyResult:
    """How hard each example was to learn, from the checkpoints of the run that learnt it.

    Args:
        index: the corpus and its task, with or without features. run: its training.
        score: "vog", "el2n", "forgetting", "pre-memorization", "self-influence" or "loss".
        checkpoints: places in `run.checkpoints` to visit, which is done in the order of the run;
            all of them when left out, for EL2N the first alone.
        by: a metadata column: values are z-scored within its groups.
        options: of some scores; see `Options`.

    The model is left as it was found.

    Raises:
        InputError: for what does not fit, or is missing for this score.
        MismatchError: when a checkpoint does not fit the task's model.
    """
    _check(score, options)
    places = _places(run, score, checkpoints)
    visited = [run.checkpoints[place] for place in sorted(places)]
    rates = options.get("learning_rates")
    if rates is not None and len(rates) == len(places):  # they are in the order of the places
        options["learning_rates"] = [rate for _, rate in sorted(zip(places, rates, strict=True))]
    groups = None if by is None else index.metadata(by)  # fails before any work
    scored = _scored(score, index, visited, options)
    values, notes = scored.values, [*_told(run, score, visited), *scored.notes]
    missing = int(np.isnan(values).sum())
    if missing:
        notes.append(f"{missing:,} examples whose numbers are not finite have no value")
    unit = SCORES[score].unit
    if groups is not None:
        values, unit = z_scores(values, groups), f"z-score of {unit}, within {by}"
    steps = [checkpoint.step for checkpoint in visited]
    high, names = SCORES[score].high, list(index.ids)
    return DifficultyResult(score, unit, names, values, scored.by_checkpoint, steps, high, notes)


def _check(score: str, options: Options) -> None:
    if score not in SCORES:
        raise InputError("Unknown score", expected=", ".join(SCORES), found=repr(score))
    unknown = sorted(options.keys() - Options.__annotations__.keys())
    if unknown:
        raise InputError(
            "Unknown options",
            expected=", ".join(Options.__annotations__),
            found=", ".join(unknown),
        )
    threshold = options.get("threshold", THRESHOLD)
    if not 0 <= threshold < np.inf:
        raise InputError("The threshold is in nats", expected="0 or more", found=threshold)


def _scored(score: Score, index: Index, visited: list[Checkpoint], options: Options) -> Scored:
    from headwater.methods import outcome_scores
    from headwater.methods.outcomes import Classifier

    classifier = Classifier(options.get("logits"), options.get("labels", "y"))
    exact = options.get("exact", False)
    if score == "vog":
        from headwater.methods.vog import vog

        log_odds = options.get("log_odds", False)
        return vog(index, visited, classifier, inputs=options.get("inputs"), log_odds=log_odds)
    if score == "self-influence":
        from headwater.methods.self_influence_run import self_influence_of_run

        features, rates = options.get("features"), options.get("learning_rates")
        return self_influence_of_run(index, visited, features=features, learning_rates=rates)
    if score == "el2n":
        return outcome_scores.el2n(index, visited, classifier)
    if score == "forgetting":
        return outcome_scores.forgetting(index, visited, classifier, exact=exact)
    if score == "pre-memorization":
        threshold = options.get("threshold", THRESHOLD)
        return outcome_scores.pre_memorization(
            index, visited, classifier, exact=exact, threshold=threshold
        )
    return outcome_scores.loss(index, visited)


def z_scores(values: Array, groups: Sequence[Any]) -> Array:
    """(value - mean) / standard deviation within each group; 0 where all of a group are equal."""
    names = np.asarray(["(none)" if group is None else str(group) for group in groups])
    result = np.full(len(values), np.nan)
    for name in np.unique(names):
        mine = (names == name) & ~np.isnan(values)
        if mine.any():
            part = values[mine]
            away, spread = part - part.mean(), part.std()
            tiny = 1e-12 * np.abs(part).max()
            result[mine] = away / spread if spread > tiny else 0.0
    return result


def _places(run: TrainingRun, score: str, asked: Sequence[int] | None) -> list[int]:
    """Places in the run's checkpoints, each once, in the order in which they were asked for."""
    found = run.checkpoints
    if not found:
        raise InputError(
            "The run has no checkpoints on disk",
            expected="a run opened from its folder, or trained with out=",
        )
    places = list(asked) if asked is not None else list(range(1 if score == "el2n" else len(found)))
    if any(not -len(found) <= place < len(found) for place in places):
        raise InputError(
            "The run has no such checkpoint",
            expected=f"places from 0 to {len(found) - 1}",
            found=", ".join(map(str, places)),
        )
    distinct = list(dict.fromkeys(place % len(found) for place in places))
    least = SCORES[score].least
    if len(distinct) < least:
        raise InputError(
            f"The score {score} compares checkpoints",
            expected=f"at least {least} of them",
            found=len(distinct),
            do="keep more of them in training (Recipe(checkpoints=...)), or use el2n or loss",
        )
    return distinct


def _told(run: TrainingRun, score: str, visited: Sequence[Checkpoint]) -> list[str]:
    """At which step EL2N looked: it is meant for an early one."""
    if score != "el2n":
        return []
    steps = ", ".join("?" if one.step is None else f"{one.step:,}" for one in visited)
    of = "" if run.steps is None else f" of {run.steps:,}"
    only = "; the run's only checkpoint" if len(run.checkpoints) == 1 else ""
    return [f"at step {steps}{of}{only}"]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else value


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
