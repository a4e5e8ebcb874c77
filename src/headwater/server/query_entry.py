"""One query of a set, as it is shown, filtered and sorted, with the figures its line allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headwater.engine.errors import InputError
from headwater.evidence.filters import Row
from headwater.server.exports import answer_from
from headwater.server.query_kinds import told_kind
from headwater.server.records import SHOWN, from_pair, is_pair, proponent_items, texts_of

FIRST = 10  # the cut of recall and precision
AIS = 0.5  # a score above it counts as support

METRICS = {
    "recall@10": "Share of queries with a right example among the first ten",
    "precision@10": "Share of right examples among the first ten",
    "MRR": "1 / place of the first right example, 0 where there is none",
}
AIS_ENDING = " (AIS)"  # the same by entailment scores above one half


Record = dict[str, Any]


@dataclass
class Entry:
    """One query of a set.

    Args:
        position: in the set, from 0. line: in the file, from 1. record: the line as it was read.
        set_name: it may tell the kind of its queries.
    """

    position: int
    line: int
    record: Record
    set_name: str = ""

    @cached_property
    def own(self) -> Record:
        """The record in our names."""
        return from_pair(self.record) if is_pair(self.record) else self.record

    @cached_property
    def answer(self) -> Record | None:
        """The whole answer, where the line holds one."""
        if "judgement" not in self.record or "distribution" not in self.record:
            return None
        try:
            return answer_from(self.record).to_dict()
        except InputError:
            return None

    @cached_property
    def proponents(self) -> list[Record]:
        """What was found for it, best first."""
        return proponent_items(self.own.get("proponents"))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Figures of this query, where the line says which examples are right."""
        made = dict(zip(METRICS, ranks(self._correct()), strict=False))
        scores = [one["ais"] for one in self.proponents]
        if scores and all(score is not None for score in scores):
            figures = ranks([score > AIS for score in scores])
            made |= {f"{n}{AIS_ENDING}": v for n, v in zip(METRICS, figures, strict=False)}
        return made

    def _correct(self) -> list[bool] | None:
        """Which proponents are right, by the line's own word or by the ids of right documents."""
        told = [one["correct"] for one in self.proponents]
        if told and all(one is not None for one in told):
            return [bool(one) for one in told]
        gold = set(texts_of(self.own.get("gold")))
        if not gold or "proponents" not in self.own:
            return None
        return [
            bool(gold & {str(one["id"]), *map(str, one.get("duplicates") or ())})
            for one in self.proponents
        ]

    @cached_property
    def fields(self) -> Record:
        """What else the line says."""
        return {name: value for name, value in self.own.items() if name not in SHOWN}

    @cached_property
    def shown(self) -> Record:
        """The row as the interface has it."""
        own = self.own
        completions = texts_of(own.get("completion"))
        prompt = own.get("prompt")
        name = next((own[k] for k in ("id", "name", "query") if own.get(k) is not None), self.line)
        answers = [*completions[1:]]
        generations: list[str] = []
        for key, value in own.items():
            if key in ("groundtruth", "answers", "aliases"):
                answers += texts_of(value)
            elif key.endswith(("generations", "generation")):
                generations += texts_of(value)
        return {
            "position": self.position,
            "line": self.line,
            "id": str(name),
            "prompt": prompt if isinstance(prompt, str) else "\n".join(texts_of(prompt)),
            "completion": (completions or [""])[0] or None,
            "kind": told_kind(own, self.set_name),
            "instead_of": own.get("instead_of"),
            "answers": answers,
            "generations": generations,
            "proponents": self.proponents,
            "opponents": proponent_items(own.get("opponents")),
            "metrics": self.metrics,
            "fields": {} if self.answer else self.fields,
            "answer": self.answer,
        }

    @cached_property
    def row(self) -> Row:
        """What a filter looks at: the texts of the query, and all its columns."""
        shown = self.shown
        texts = [shown["prompt"], shown["completion"] or "", *shown["answers"]]
        texts += shown["generations"]
        score = self.proponents[0]["score"] if self.proponents else None
        return Row(shown["id"], " ".join(texts), self.columns, score)

    @cached_property
    def columns(self) -> Record:
        """Everything that can be filtered and sorted by; of an answer also what it came to."""
        shown, answer = self.shown, self.answer
        own = {name: shown[name] for name in ("id", "prompt", "completion")}
        if "instead_of" in self.own:
            own["instead_of"] = self.own["instead_of"]
        if answer is not None:
            told = answer["judgement"]
            own |= {"best": told["best"], "p_value": told["p_value"]}
            own["found"] = None if answer["picture"] is None else answer["picture"]["kind"]
        return {**own, **self.fields, **self.metrics}


def ranks(correct: Sequence[bool] | None) -> tuple[float, ...]:
    """Of a ranking whether its first ten hold a right one, their share, and 1 / first place."""
    if correct is None:
        return ()
    first = list(correct[:FIRST])
    place = next((number for number, one in enumerate(correct, 1) if one), None)
    share = sum(first) / len(first) if first else 0.0
    return float(any(first)), share, 0.0 if place is None else 1.0 / place
