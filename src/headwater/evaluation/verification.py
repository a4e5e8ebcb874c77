"""What putting an answer to the test came to: figures beside their controls, and a verdict.

Two tests, which ask different things. A tail patch: does one more step on these examples make the
output more likely than a step on others does? Retraining: is it less likely where they were never
seen? The second decides where it was made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headwater.engine.errors import InputError

Array = np.ndarray[Any, Any]

FACTOR = 2.0  # between probabilities that differ clearly
SAME = 1.1  # within which a probability stays where it is
LEVEL = 0.05
MOST_SUBSETS = 20_000  # that are all gone through for a p-value
DRAWS = 9_999  # instead, where there are more

FOUND, RANDOM, LEXICAL, ALL = "found", "random", "lexical", "all"


@dataclass
class Patched:
    """One step on each of some documents.

    Args:
        name: "found", "random" or "lexical". title: in words. ids: what was stepped on.
        points, nats: by how much P and log P rose, for each.
    """

    name: str
    title: str
    ids: list[str]
    points: list[float]
    nats: list[float]

    @property
    def mean_points(self) -> float:
        """Over the documents."""
        return float(np.mean(self.points))

    @property
    def mean_nats(self) -> float:
        """Over the documents."""
        return float(np.mean(self.nats))


@dataclass
class Retrained:
    """Models trained without some documents, one for each seed.

    Args:
        name: "all", "found", "random" or "lexical". title: in words.
        left_out: ids, by seed. log_p: of the output, by seed.
        says: what each model says after the prompt; empty where that is not known.
    """

    name: str
    title: str
    left_out: list[list[str]]
    log_p: list[float]
    says: list[str] = field(default_factory=list[str])

    @property
    def probability(self) -> float:
        """Of the output, the geometric mean over seeds."""
        return math.exp(float(np.mean(self.log_p)))


@dataclass
class Verification:
    """An answer put to the test.

    Args:
        query, prompt, completion: what was asked. probability: the model's, of the output.
        method, title: of what found the examples; empty for a group.
        subject: what was left out, in words: "the 5 found".
        found: the examples: id, text, score, and the ids of copies that went with them.
        group: (column, value) where a whole group was asked about.
        step: how the tail patch was taken. patched: by set. p_value: of the found against random.
        training: how models were retrained. seeds: theirs. retrained: by set.
        notes: what a reader should know. seconds: by stage.
    """

    query: str
    prompt: str
    completion: str
    probability: float
    method: dict[str, Any]
    title: str
    subject: str
    examples: int
    found: list[dict[str, Any]]
    group: tuple[str, str] | None = None
    step: str | None = None
    patched: list[Patched] = field(default_factory=list[Patched])
    p_value: float | None = None
    training: str | None = None
    seeds: list[int] = field(default_factory=list[int])
    retrained: list[Retrained] = field(default_factory=list[Retrained])
    notes: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def confirmed(self) -> bool | None:
        """Whether the stronger test that was made speaks for the examples; None = undecided."""
        return self._judged()[0]

    @property
    def verdict(self) -> str:
        """One sentence with the figures, of the stronger test that was made."""
        return self._judged()[1]

    @property
    def patch_verdict(self) -> str | None:
        """What the tail patch says."""
        return self._by_step()[1] if self.patched else None

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        made = asdict(self)
        for record, patched in zip(made["patched"], self.patched, strict=True):
            record |= {"mean_points": patched.mean_points, "mean_nats": patched.mean_nats}
        for record, trained in zip(made["retrained"], self.retrained, strict=True):
            record["probability"] = trained.probability
        judged = {"verdict": self.verdict, "confirmed": self.confirmed}
        return made | judged | {"patch_verdict": self.patch_verdict}

    def __repr__(self) -> str:
        return "\n".join([f"{self.query}   [{self.subject}]", self.verdict])

    def _judged(self) -> tuple[bool | None, str]:
        if self.retrained:
            return self._by_training()
        if self.patched:
            return self._by_step()
        return None, "Nothing was tested."

    def _by_training(self) -> tuple[bool | None, str]:
        whole, found, random = (self._log_p(name) for name in (ALL, FOUND, RANDOM))
        count = len(next(one for one in self.retrained if one.name == FOUND).left_out[0])
        figures = (
            f"Without {self.subject}, P {_moved(whole, found)}; without {count} random "
            f"{'one' if count == 1 else 'ones'} it {_then(whole, random)}"
        )
        clear = np.log(FACTOR)
        falls = (found < whole - clear) & (found < random - clear)
        if falls.all() and random.mean() < whole.mean() - clear:
            why = "both cost the answer, so the model hardly holds it, and nothing follows"
            return None, f"{figures}: {why}."
        if falls.all():
            return True, f"{figures}: these examples are behind it{self._shared_words(clear)}."
        if falls.any():
            told = f"clearly so with {int(falls.sum())} of {len(falls)} seeds only: undecided"
            return None, f"{figures}, {told}."
        if (random < whole - clear).all():
            return None, f"{figures}: leaving anything out costs the answer, and nothing follows."
        return False, f"{figures}, which does not differ clearly from random: not confirmed."

    def _shared_words(self, clear: float) -> str:
        """What leaving out as many by shared words says, where it costs the answer as well."""
        control = next((one for one in self.retrained if one.name == LEXICAL), None)
        if control is None:
            return ""
        whole, found = self._log_p(ALL), self._log_p(FOUND)
        lexical = np.asarray(control.log_p)
        if not (lexical < whole - clear).all() or (lexical > found + clear).all():
            return ""
        same = next(one for one in self.retrained if one.name == FOUND).left_out
        if [sorted(ids) for ids in same] == [sorted(ids) for ids in control.left_out]:
            return ", and are those that shared words find, too"
        return "; leaving out as many by shared words costs it as much"

    def _log_p(self, name: str) -> Array:
        return np.asarray(next(one for one in self.retrained if one.name == name).log_p)

    def _by_step(self) -> tuple[bool | None, str]:
        found, random = (next(p for p in self.patched if p.name == n) for n in (FOUND, RANDOM))
        count, others = len(found.ids), len(random.ids)
        each = "the one found" if count == 1 else f"each of {count} found"
        if self.group is not None:
            each = f"each of {count} of the group"
        rise = found.mean_nats > random.mean_nats
        figures = (
            f"One step on {each} moves P by {found.mean_points:+.3g} points "
            f"({found.mean_nats:+.3g} nats) on average, on each of {others} random ones by "
            f"{random.mean_points:+.3g} ({random.mean_nats:+.3g} nats)"
        )
        if self.p_value is None:
            return None, f"{figures}: too few to tell."
        p = f"p = {self.p_value:.2g}"
        if rise and self.p_value <= LEVEL:
            return True, f"{figures}, {p}: they move the model towards this output."
        return False, f"{figures}, {p}, which does not differ from random: not confirmed."


def percent(value: float) -> str:
    """A probability with the digits that say something: 97.5 %, 0.031 %."""
    if value < 1e-4:
        return "below 0.01 %"
    return f"{value * 100:.1f} %" if value >= 0.1 else f"{value * 100:.2g} %"


def _moved(before: Array, after: Array) -> str:
    """falls from A to B."""
    one, other = (percent(math.exp(float(x.mean()))) for x in (before, after))
    way = _way(before, after)
    return (
        f"stays at {other} ({one} with all)" if way == "stays" else f"{way} from {one} to {other}"
    )


def _then(before: Array, after: Array) -> str:
    """stays at C."""
    way, value = _way(before, after), percent(math.exp(float(after.mean())))
    return f"stays at {value}" if way == "stays" else f"{way} to {value}"


def _way(before: Array, after: Array) -> str:
    change = float(after.mean() - before.mean())
    if abs(change) < math.log(SAME):
        return "stays"
    return "falls" if change < 0 else "rises"


def permutation_p(first: Sequence[float], others: Sequence[float], seed: int = 0) -> float | None:
    """How often as many values drawn from all have so great a mean; None where 0.05 is impossible.

    Every subset is looked at where there are few of them; else 9,999 random ones and `first`.

    Raises:
        InputError: when either is empty.
    """
    if not len(first) or not len(others):
        raise InputError("There is nothing to compare", expected="values on both sides")
    pooled, k = np.concatenate([first, others]).astype(np.float64), len(first)
    total = math.comb(len(pooled), k)
    if 1 / total > LEVEL:
        return None
    limit = pooled[:k].sum() - 1e-12 * np.abs(pooled).sum()  # sums in another order are the same
    if total <= MOST_SUBSETS:
        from itertools import combinations

        sums = pooled[np.array(list(combinations(range(len(pooled)), k)))].sum(axis=1)
        return float((sums >= limit).mean())
    random = np.random.Generator(np.random.PCG64(seed))
    sums = np.array([random.permutation(pooled)[:k].sum() for _ in range(DRAWS)])
    return float((1 + (sums >= limit).sum()) / (1 + DRAWS))
