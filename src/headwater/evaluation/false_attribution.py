"""The false-attribution rate: does a rule name a document that the answer would do without?

Dai and Gifford (2023): a = A(x) is the document that a rule names for a model's answer x. Train
without a and ask again: if the rule still names a for the new answer, a was not needed for it.

    f = P[A(answer without a) = a]       b = P[A(answer without r) = a],  r random, not a
    true rate = ((1 - f) - (1 - b)) / b      false-attribution rate = 1 - true rate (= f / b)

Any retraining may change an answer; b says how often it stays for reasons of chance alone, and the
rate is f set beside it. 0: without what it names the rule never names it again. 1: what it names
matters no more than a random document. The random documents are the same for all prompts, since a
model trained without one answers them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.engine.errors import InputError
from headwater.evaluation.answers import answered
from headwater.evaluation.bank import Bank, Kind, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import checked_seeds, counts, ends, mean
from headwater.evaluation.reranking import rank_all
from headwater.evidence.random_scores import digest
from headwater.methods.method import Method

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.query import Query

Array = np.ndarray[Any, Any]
# For each query with its answer the position of the document that it is put down to, if any.
Rule = Callable[[Sequence["Query"]], Sequence[int | None]]


@dataclass(frozen=True)
class Attributed:
    """How often a rule names what an answer would do without.

    Attributes:
        rate: the false-attribution rate, f / b; 0 is best, 1 is chance, more than 1 can happen.
        still: f, how often the same document is named without it. random: b, without another.
        each: f and b of every prompt; None where it could not be counted.
        prompts, seeds, randoms: how many were counted, trained with, left out as a control.
        notes: what was not counted and what the figures cannot show, in words.
    """

    rate: Estimate | str
    still: Estimate | str
    random: Estimate | str
    each: list[tuple[float, float] | None]
    prompts: int
    seeds: int
    randoms: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable."""
        return asdict(self)


def first_of(index: Index, method: Method, seed: int = 0) -> Rule:
    """The rule that names a method's first document; none where all scores are 0 or NaN.

    Args:
        seed: of the order of equal scores.
    """
    places = {name: position for position, name in enumerate(index.ids)}

    def rule(queries: Sequence[Query]) -> list[int | None]:
        ranked = rank_all(index, queries, method, 1, seed)
        firsts = [names[0] if names else None for names in ranked]
        return [None if name is None else places[name] for name in firsts]

    return rule


def false_attribution(
    bank: Bank,
    rule: Rule,
    prompts: Sequence[Query],
    *,
    seeds: Sequence[int] = (0,),
    randoms: int = 8,
    kind: Kind = "resampled",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Attributed:
    """The false-attribution rate of a rule.

    Args:
        bank: its trainer takes down answers (`measures=("loss", "answer")`) to the `prompts`.
        rule: what names a document; see `first_of`. It stays as it is: the same index, whatever
            model gave the answer.
        prompts: the bank's queries; of a language model's only the prompt counts.
        seeds: of the trainings. Answers are compared within a seed.
        randoms: documents that are left out as a control, 2 or more.
        kind: retrained without a document, or the same training with its loss weighted zero.
        resamples, seed: of the interval; `seed` also of the random documents.

    Raises:
        InputError: for no prompt, others than the bank's, or a bank without answers.
    """
    trained = checked_seeds(seeds)
    documents = bank.trainer.documents
    if not prompts or len(prompts) != len(bank.trainer.asked()):
        expected = f"the {len(bank.trainer.asked())} queries of the bank, at least one"
        raise InputError("Prompts and bank do not fit", expected=expected, found=len(prompts))
    if not 2 <= randoms <= documents:
        raise InputError("randoms is not usable", expected=f"2 to {documents}", found=randoms)
    asked = _Asked(bank, rule, prompts, kind)
    first = asked.named([((), one) for one in trained])
    named = {(q, one): a for one in trained for q, a in enumerate(first[(), one]) if a is not None}
    pool = np.random.default_rng(seed).permutation(documents)[:randoms].tolist()
    left_out = dict.fromkeys([((a,), one) for (_, one), a in named.items()])
    if named:
        left_out |= dict.fromkeys([((r,), one) for r in pool for one in trained])
    again = asked.named(list(left_out))
    f, b = _probabilities(named, again, pool, len(prompts))
    known = np.flatnonzero(~np.isnan(f))
    each: list[tuple[float, float] | None] = [None] * len(prompts)
    for q in known:
        each[q] = (float(f[q]), float(np.nanmean(b[q])))
    notes = [
        f"prompt {q} is not counted: the model has no answer, or the rule no document for it"
        for q in np.flatnonzero(np.isnan(f))
    ]
    if len(trained) == 1:
        notes.append("one seed: an answer is that of a single training")
    own = np.array([one for one in each if one is not None]).reshape(-1, 2)
    still, random = (mean(column, resamples, seed) for column in own.T)
    rate = _rate(f[known], b[known], resamples, seed)
    return Attributed(rate, still, random, each, len(known), len(trained), randoms, notes)


Left = tuple[tuple[int, ...], int]  # what is left out, and the seed


class _Asked:
    """What the rule names for the answers of models; one answer is put to it once."""

    def __init__(self, bank: Bank, rule: Rule, prompts: Sequence[Query], kind: Kind) -> None:
        self.bank, self.rule, self.prompts = bank, rule, prompts
        self.kind: Kind = kind
        self.known: dict[str, int | None] = {}

    def named(self, left_out: Sequence[Left]) -> dict[Left, list[int | None]]:
        """For each model the document that each prompt's answer is put down to."""
        kept = self.bank.answers([Trial(out, seed, self.kind) for out, seed in left_out])
        answers = [
            [answered(*pair) for pair in zip(self.prompts, row, strict=True)] for row in kept
        ]
        new = {digest(one): one for row in answers for one in row if one is not None}
        new = {name: one for name, one in new.items() if name not in self.known}
        if new:
            self.known |= dict(zip(new, self.rule(list(new.values())), strict=True))
        rows = [[None if x is None else self.known[digest(x)] for x in row] for row in answers]
        return dict(zip(left_out, rows, strict=True))


def _probabilities(
    named: Mapping[tuple[int, int], int],
    again: Mapping[Left, Sequence[int | None]],
    pool: Sequence[int],
    prompts: int,
) -> tuple[Array, Array]:
    """f [prompts] and b [prompts, pool], means over seeds; NaN where nothing was named."""
    f: list[list[float]] = [[] for _ in range(prompts)]
    b: list[list[list[float]]] = [[[] for _ in pool] for _ in range(prompts)]
    for (q, seed), a in named.items():
        f[q].append(again[(a,), seed][q] == a)
        for place, r in enumerate(pool):
            if r != a:
                b[q][place].append(again[(r,), seed][q] == a)

    def share(hits: Sequence[float]) -> float:
        return float(np.mean(hits)) if hits else np.nan

    return np.array([share(one) for one in f]), np.array([[share(o) for o in row] for row in b])


def _rate(f: Array, b: Array, resamples: int, seed: int) -> Estimate | str:
    """f / b with its interval: prompts and random documents are both drawn again."""
    if len(f) < 2:
        return "no prompt could be counted" if not len(f) else "one prompt only: no interval"
    there = (~np.isnan(b)).astype(np.float64)
    hits = np.nan_to_num(b)
    of_prompts = counts(len(f), resamples, seed)
    of_randoms = counts(b.shape[1], resamples, seed + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        control = (of_randoms @ hits.T) / (of_randoms @ there.T)  # [resamples, prompts]
        had = ~np.isnan(control)
        drawn_b = (of_prompts * np.nan_to_num(control)).sum(axis=1) / (of_prompts * had).sum(axis=1)
        draws = (of_prompts @ f / len(f)) / drawn_b
    base = float(np.nanmean(b, axis=1).mean())
    if base == 0:
        return "b is 0: the document is never named again, whatever is left out, so f says nothing"
    # Without a figure: draws of nothing but the documents that were named themselves.
    good = draws[np.isfinite(draws)]
    if np.mean(drawn_b[np.isfinite(drawn_b)] == 0) > 0.025:
        return f"b is {base:.2g}, too near 0 for an interval of f / b"
    return Estimate(float(f.mean()) / base, *ends(good, len(f)))


class FalseAttribution:
    """The false-attribution rate as a metric of a board; see `false_attribution`.

    Scores are of the queries as they were asked; a rule must also be put to new answers, so that
    the metric holds the methods themselves.

    Args:
        bank, prompts: as for `false_attribution`, like the options that follow.
        rules: by a row's name its method, or a rule.
        index: what methods search; its documents are the bank's, in the same order.
    """

    name = "false-attribution"

    def __init__(
        self,
        bank: Bank,
        prompts: Sequence[Query],
        rules: Mapping[str, Method | Rule],
        index: Index | None = None,
        *,
        seeds: Sequence[int] = (0,),
        randoms: int = 8,
        kind: Kind = "resampled",
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        ids: Any = getattr(bank.trainer, "ids", None)
        if index is not None and ids is not None and list(ids) != list(index.ids):
            raise InputError(
                "The index holds other documents than the bank",
                expected=f"{len(ids)} documents, in the order of the bank's corpus",
                found=f"{len(index.ids)}, or another order",
            )
        methods = [name for name, rule in rules.items() if isinstance(rule, Method)]
        if index is None and methods:
            raise InputError("A method needs the index that it searches", found=", ".join(methods))
        self.bank, self.prompts, self.rules, self.index = bank, list(prompts), rules, index
        self.seed = seed
        self.options: dict[str, Any] = {
            "seeds": checked_seeds(seeds),
            "randoms": randoms,
            "kind": kind,
            "resamples": resamples,
        }

    @property
    def columns(self) -> Mapping[str, str]:
        """The rate."""
        return {
            "false": "Share of attributions that are no better than chance (f / b: the document "
            "named is named again for a model that never saw it, set beside a random removal); "
            "lower is better"
        }

    def describe(self) -> dict[str, Any]:
        """What decides the figures; JSON-serialisable. A rule of the user's goes by its name."""
        fields: Mapping[str, str] = getattr(self.bank.trainer, "fields", {})
        rules = {
            name: rule.describe() if isinstance(rule, Method) else name
            for name, rule in self.rules.items()
        }
        asked = {"prompts": [digest(one) for one in self.prompts], "answer": fields.get("answer")}
        return {"bank": self.bank.key, "rules": rules, **asked, "seed": self.seed, **self.options}

    def measure(self, scored: Scored) -> Figures:
        """The figure of one method."""
        rule = self.rules.get(scored.name)
        if rule is None:
            return {"false": "needs the method itself, to be put to new answers"}
        if isinstance(rule, Method):
            rule = first_of(cast("Index", self.index), rule, self.seed)
        made = false_attribution(self.bank, rule, self.prompts, seed=self.seed, **self.options)
        return {"false": made.rate}
