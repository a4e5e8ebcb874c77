"""An Answer: ranked evidence for one query, how far to trust it, and how to get it again.

It holds plain values only, so that a table, a page, a JSON line or a widget can be made of it
without the model or the index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headwater.engine.as_dict import as_dict


@dataclass
class Kind:
    """A kind of evidence as an answer asked for it.

    Args:
        title: of its method. unit: of its scores. note: what it means, and what it does not.
        examples: how many have a score above zero.
    """

    title: str
    unit: str
    note: str
    examples: int


@dataclass
class Place:
    """Where one kind of evidence puts an example: its rank from 1, and its score there."""

    rank: int
    score: float


@dataclass
class Spread:
    """How far an example's score and rank go when something is drawn, or taken, anew.

    Args:
        over: "projection seeds" or "checkpoints". count: how many, the index's own among them.
        score, rank: least and greatest. Where the others are draws like the own, a further one
            falls between with a chance of (count - 1) / (count + 1). An opponent's rank counts
            from the lowest score.
    """

    over: str
    count: int
    score: tuple[float, float]
    rank: tuple[int, int]


@dataclass
class Picture:
    """What an answer comes down to.

    Args:
        kind: "copied", "stated", "shaped" or "nothing stands out".
        summary: one sentence with the figures. figures: the same as values.
    """

    kind: str
    summary: str
    figures: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class Evidence:
    """One training example in an answer.

    Args:
        id, text, metadata: the example. position: its place in the corpus.
        kind: of evidence: the one that puts it highest.
        kinds: its place in every kind of evidence that knows it.
        support: how its text supports the output ("states the fact", "shares subject", ...).
        score: raw, in the answer's unit; positive = supports the output. None where influence was
            asked for and this example has no such score (it was no candidate).
        percentile: share of all examples with a lower score, in percent; None likewise.
        specificity: share of the reference queries under which this same example scores lower, in
            percent; None without references. An example that supports everything explains nothing.
        tokens: the example's text in tokens, each with its share of the score; empty when not
            asked for. The shares of all its tokens sum to the score where gradients factor by
            token.
        by_target: the score split over the query's target tokens, in their order.
        terms: the words it shares with the output and what each adds to its lexical score.
        spans: characters of its text [start, end) that stand in the output word for word.
        duplicates: ids of examples with the same text, folded into this one.
        out_of_turn: shown after the others because the picture names it; it stands further down.
        spreads: how uncertain its score and rank are; empty when not asked for.
    """

    id: str
    text: str
    score: float | None
    percentile: float | None
    position: int
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    kind: str = "influence"
    specificity: float | None = None
    tokens: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    by_target: list[float] = field(default_factory=list[float])
    duplicates: list[str] = field(default_factory=list[str])
    kinds: dict[str, Place] = field(default_factory=dict[str, Place])
    support: str | None = None
    terms: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    spans: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    out_of_turn: bool = False
    spreads: list[Spread] = field(default_factory=list[Spread])


@dataclass
class Judgement:
    """Whether anything stands out, by a stated null.

    Args:
        best: the query's best score.
        null: best scores of the same prompt with random completions whose tokens are as frequent
            in the corpus.
        p_value: (1 + number of null values >= best) / (1 + number of null values).
        stands_out: p_value <= 0.05; None where there is no null.
        summary: one sentence with the figures.
    """

    best: float
    null: list[float]
    p_value: float | None
    stands_out: bool | None
    summary: str


@dataclass
class Distribution:
    """How the scores of all examples lie, so that one sees how far those shown stand out.

    Args:
        edges: of equally wide bins, from the lowest score to the highest [bins + 1].
        counts: examples of each bin, its lower edge included (and the last upper one) [bins].
    """

    edges: list[float]
    counts: list[int]


@dataclass
class Answer:
    """Evidence for one query.

    Args:
        prompt, completion, query: what was asked, as text and as a heading. instead_of: what the
            completion is compared with, in a contrast.
        target: the explained tokens. probability: the model's, of the target; None for contrasts.
        method: name and parameters. unit, additive: of its scores.
        proponents, opponents: best and worst first.
        judgement: against the null. examples: how many were scored. candidates_of: how many they
            were chosen from, where influence was asked of candidates only; else None.
        kinds: of evidence that were asked for. spans: of the output that stand in the corpus word
            for word, with the documents that hold them. picture: what all of it comes down to.
        fusion: what decides the order of the proponents: "rrf" (reciprocal ranks of several
            kinds), a kind (the only one, or the one that was chosen), or None where influence was
            asked for alone.
        distribution: of the scores of all examples; None where influence was not asked for.
        groups: for additive methods, totals by metadata column: (value, total, examples).
        notes: what a reader should know. seconds: the cost by step.
        reproduce: the `command` line and the `python` that give this answer again, and what is
            `left_out` of the first because a command line cannot say it.
    """

    query: str
    prompt: str
    completion: str
    target: list[str]
    probability: float | None
    method: dict[str, Any]
    title: str
    unit: str
    additive: bool
    examples: int
    proponents: list[Evidence]
    opponents: list[Evidence]
    judgement: Judgement
    groups: dict[str, list[tuple[str, float, int]]] = field(
        default_factory=dict[str, list[tuple[str, float, int]]]
    )
    notes: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    reproduce: dict[str, str] = field(default_factory=dict[str, str])
    name: str | None = None
    kinds: dict[str, Kind] = field(default_factory=dict[str, Kind])
    spans: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    picture: Picture | None = None
    instead_of: str | None = None
    fusion: str | None = None
    candidates_of: int | None = None
    distribution: Distribution | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        return as_dict(self)

    def to_html(self) -> str:
        """One self-contained HTML file: opens from a disk, offline, and can be mailed.

        Raises:
            ResourceError: where the interface was not built.
        """
        from headwater.answer.page import to_html

        return to_html([self])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """What a notebook shows: the interface where anywidget is installed, else a table."""
        from headwater.answer.page import mimebundle

        return mimebundle(self)

    def to_pair(self) -> dict[str, Any]:
        """A record in the schema of the PAIR pretraining-tda viewer (a line of JSON Lines)."""
        record: dict[str, Any] = {
            "example_id": self.name or self.query,
            "inputs_plaintext": self.prompt,
            "targets_plaintext": self.completion,
        }
        for kind, items in (("proponent", self.proponents), ("opponent", self.opponents)):
            record[f"{kind}s"] = [item.text for item in items]
            record[f"{kind}_ids"] = [item.id for item in items]
            record[f"{kind}_scores"] = [item.score for item in items]
        return record

    def order(self) -> str:
        """What the order of the proponents is, in words."""
        if self.fusion is None:
            return f"score = {self.unit}"
        if self.fusion != "rrf":
            # With influence the scores shown are its own, whatever the order.
            own = "" if self.method else f", by {_short_unit(self.unit)}"
            return f"in the order of {self.fusion}{own}"
        if len(self.kinds) == 1:  # saved when one kind alone was fused, too
            return f"in the order of {next(iter(self.kinds))}"
        return "in an order fused by reciprocal ranks"

    def score_of(self, item: Evidence) -> str | None:
        """An example's score in four digits, with a sign where it says for and against."""
        if item.score is None:
            return None
        return f"{item.score:+.4g}" if self.method else f"{item.score:.4g}"

    def __repr__(self) -> str:
        lines = [f"{self.query}   [{self.title}; {self.order()}]"]
        lines.append(self.judgement.summary if self.picture is None else self.picture.summary)
        for kind, items in (("supports", self.proponents), ("opposes", self.opponents)):
            for rank, item in enumerate(items, 1):
                text = " ".join(item.text.split())
                short = text if len(text) <= 76 else text[:73] + "..."
                if self.kinds and kind == "supports":
                    number = "..." if item.out_of_turn else f"{rank:3}"
                    lines.append(f"evidence {number}  {_places(item)}  {item.id}  {short}")
                    continue
                # What influence has no score for (it was no candidate) has none here.
                score = "-" if item.score is None else f"{item.score:+.4g}"
                above = "-" if item.percentile is None else f"{item.percentile:.2f} %"
                lines.append(f"{kind:8} {rank:3}  {score:>10}  {above:>8}  {item.id}  {short}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _short_unit(unit: str) -> str:
    """Without what stands in brackets: what the kind means is said beside it."""
    return unit.partition(" (")[0]


def _places(item: Evidence) -> str:
    """Each kind's rank and score of an example."""
    told = (f"{kind} {one.rank:,} ({one.score:.3g})" for kind, one in item.kinds.items())
    return ", ".join(told) or "-"
