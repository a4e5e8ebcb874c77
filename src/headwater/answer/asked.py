"""What was asked for, apart from the queries: checked once, and told to who would repeat it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.answer.kinds import KINDS, WITHOUT_GRADIENTS
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.evidence.support import Entailment
    from headwater.index.index import Index
    from headwater.index.selection import Groups
    from headwater.methods.method import Method

TEXTS = ("text", "causal_lm")  # kinds of tasks whose examples are texts


@dataclass(frozen=True)
class Asked:
    """The options of `ask`, which says what each means."""

    method: Method | None
    top: int
    calibrate: bool
    tokens: bool
    by: Sequence[str]
    modules: Sequence[str] | None
    ids: Collection[str] | None
    groups: Groups | None
    filter: str | None
    evidence: Sequence[str]
    fusion: str
    candidates: tuple[str, int] | None
    lexical: Method | None
    semantic: Method | None
    tokenizer: str | None
    entailment: Entailment | None
    uncertainty: int

    @property
    def kinds_to_read(self) -> list[str]:
        """The kinds besides influence, in the order in which they are shown."""
        return [kind for kind in KINDS[1:] if kind in self.evidence]

    def to_reproduce(self) -> dict[str, Any]:
        """What differs from the defaults."""
        given: dict[str, Any] = {
            "top": self.top,
            "by": list(self.by),
            "modules": None if self.modules is None else list(self.modules),
            "ids": None if self.ids is None else sorted(self.ids),
            "groups": None if self.groups is None else (self.groups[0], list(self.groups[1])),
            "filter": (self.filter or "").strip() or None,
            "evidence": None if list(self.evidence) == ["influence"] else list(self.evidence),
            "fusion": None if self.fusion == "rrf" else self.fusion,
            "candidates": self.candidates,
            "tokenizer": self.tokenizer,
            "lexical": self.lexical,
            "semantic": self.semantic,
            "entailment": self.entailment,
            "uncertainty": self.uncertainty or None,
        }
        options = {name: value for name, value in given.items() if value not in (None, [])}
        options |= {} if self.calibrate else {"calibrate": False}
        return options | ({} if self.tokens else {"tokens": False})

    @property
    def streams(self) -> bool:
        """Whether influence comes from the model itself, and needs no stored features."""
        from headwater.methods.view import View

        return self.method is not None and not isinstance(self.method, View)

    def check(self, index: Index) -> None:
        """Raises InputError for what does not go together, or not with this index."""
        if self.top < 1:
            raise InputError("top must be positive", found=self.top)
        _check_method(self.method, self.evidence)
        kinds = self.evidence
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise InputError(
                "Unknown kinds of evidence",
                expected=f"some of {', '.join(KINDS)}",
                found=", ".join(map(repr, unknown)) or "none",
            )
        if self.fusion != "rrf" and self.fusion not in kinds:
            raise InputError(
                "Unknown fusion", expected="rrf, or a kind that is asked for", found=self.fusion
            )
        if "influence" in kinds and index.has_features and not index.manifest["complete"]:
            next(index.shards(), None)  # refuses while shards are missing
        if self.uncertainty:
            self._check_uncertainty(index)
        if self.candidates is not None:
            self._check_candidates(*self.candidates)
        elif "influence" in kinds and not (index.has_features or self.streams):
            raise InputError(
                "The index holds no features, so influence has nothing to scan",
                expected="evidence without influence, or candidates for it",
                do="ask with evidence=['lexical'] (--evidence lexical), or, with a model, with "
                "candidates=('lexical', 200) (--candidates lexical:200)",
            )

    def _check_uncertainty(self, index: Index) -> None:
        if self.uncertainty < 0:
            raise InputError("uncertainty is a number of seeds", found=self.uncertainty)
        if "influence" not in self.evidence or self.streams or self.candidates is not None:
            raise InputError(
                "Uncertainty is of the scores of views over the whole index",
                expected="influence, by a method such as trackstar, without candidates",
                do="leave out uncertainty (--uncertainty)",
            )
        from headwater.answer.uncertainty import require_seeds

        require_seeds(index)

    def _check_candidates(self, kind: str, count: int) -> None:
        if kind not in KINDS[1:] or count < 1 or "influence" not in self.evidence:
            raise InputError(
                "Candidates are named by another kind, for influence",
                expected="evidence with influence, and (verbatim, lexical or semantic, a count)",
                found=f"{kind}:{count}",
            )


def kinds_for(
    index: Index, evidence: str | Sequence[str] | None, *, influence: bool
) -> tuple[list[str], list[str]]:
    """The kinds of evidence that are asked for, and notes where they were chosen here.

    Args:
        evidence: one kind, several (a list, or by commas), or None: influence, but lexical and
            verbatim of texts without features. influence: whether something else asks for it.
    """
    if evidence is not None:
        given = evidence.split(",") if isinstance(evidence, str) else evidence
        return [kind.strip() for kind in given], []
    if influence or index.has_features or index.manifest["task"]["kind"] not in TEXTS:
        return ["influence"], []
    kinds = list[str](WITHOUT_GRADIENTS)
    return kinds, [f"the index holds no features, so what was asked for is {' and '.join(kinds)}"]


def _check_method(method: Method | None, kinds: Sequence[str]) -> None:
    if method is None:
        return
    if not getattr(method, "influence", False):
        raise InputError(
            f"{getattr(method, 'title', method)} is no method of influence",
            expected="one such as trackstar, logra or ekfac (headwater methods lists them)",
            do="ask for other kinds by evidence= (--evidence lexical), or rank by it",
        )
    if "influence" not in kinds:
        raise InputError(
            f"{method.title} is a method of influence, which is not asked for",
            expected="influence among the kinds of evidence",
            found=", ".join(kinds),
        )
