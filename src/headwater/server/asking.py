"""The kinds of work behind the walk of one question: generate, tokens, ask, pair, verify, load.

Each is a function of the workbench and what was asked; see `jobs.py` for what a kind is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.server import schemas
from headwater.server.workbench import VERBATIM

if TYPE_CHECKING:
    from headwater.server.job import Lane, Tell
    from headwater.server.jobs import Kind
    from headwater.server.served import Served
    from headwater.server.workbench import Workbench
    from headwater.tasks.causal_lm import CausalLM

READ = ("verbatim", "lexical")  # kinds of evidence that need no model


def language_model(index: Served) -> CausalLM:
    """The index's model; raises InputError where it has none that writes."""
    from headwater.tasks.causal_lm import CausalLM

    task = index.task
    if not isinstance(task, CausalLM):
        raise InputError("Only a language model has words of its own", found=task.kind)
    return task


def generate(workbench: Workbench, asked: schemas.Generate, tell: Tell) -> dict[str, Any]:
    """A continuation, each token told as it comes."""
    from headwater.tasks.generate import stream

    task = language_model(workbench.index(asked.index))
    made = Pieces()
    pieces = stream(
        task,
        asked.prompt,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        seed=asked.seed,
    )
    for piece in pieces:
        whole = made.add(piece.text, piece.p)
        tell("token", {"text": piece.text, "probability": made.last if whole else None})
    return {"text": made.text, "tokens": made.tokens}


class Pieces:
    """Tokens as people see them: those of one character are one, with the product of their p."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens: list[dict[str, Any]] = []
        self.last: float | None = None
        self._p = 1.0

    def add(self, text: str, p: float) -> bool:
        """Take a piece; whether it ends a character."""
        self._p *= p
        if not text:
            return False
        start = len(self.text)
        self.text += text
        self.last = self._p if math.isfinite(self._p) else None
        self.tokens.append(
            {"text": text, "start": start, "end": len(self.text), "probability": self.last}
        )
        self._p = 1.0
        return True


def tokens(workbench: Workbench, asked: schemas.Tokens, tell: Tell) -> dict[str, Any]:
    """Prompt and completion in tokens, as the model reads them together."""
    from headwater.server.text_tokens import text_tokens

    task = language_model(workbench.index(asked.index))
    before, after = text_tokens(task, asked.prompt, asked.completion)
    return {"prompt": before, "completion": after}


def ask(workbench: Workbench, asked: schemas.Ask, tell: Tell) -> dict[str, Any]:
    """An answer, and the key of its score vector."""
    from headwater.answer.ask import ask as answer_to

    index = workbench.index(asked.index)
    alone = not asked.query.completion  # the model's own words are explained then
    answer = answer_to(
        index,
        asked.query.prompt if alone else asked.query.query(),
        method=workbench.method(asked.method),
        top=asked.top,
        by=asked.by,
        evidence=asked.evidence,
        uncertainty=asked.uncertainty,
        candidates=asked.candidates,
        groups=asked.where,
        filter=asked.filter,
        fusion=asked.fusion,
        calibrate=asked.calibrate,
        tokens=asked.tokens,
    )
    query = asked.query.model_copy(update={"completion": answer.completion}).query()
    narrowing = {"where": asked.where, "filter": (asked.filter or "").strip() or None}
    options = {name: value for name, value in narrowing.items() if value is not None}
    method = _scored_by(workbench, asked)
    return {
        "answer": answer.to_dict(),
        "scores": workbench.score_key(asked.index, query, method, options),
    }


def kinds_asked(workbench: Workbench, asked: schemas.Ask) -> list[str]:
    """The kinds of evidence that a question asks for, those that it leaves to us among them."""
    from headwater.answer.asked import kinds_for

    index = workbench.index(asked.index)
    wants = any((asked.method, asked.candidates, asked.by, asked.fusion == "influence"))
    return kinds_for(index, asked.evidence, influence=wants)[0]


def _scored_by(workbench: Workbench, asked: schemas.Ask) -> str | None:
    """The method whose scores are the answer's: of influence, else of its first kind."""
    kinds = kinds_asked(workbench, asked)
    if "influence" in kinds:
        return asked.method
    return next((kind for kind in ("lexical", VERBATIM, "semantic") if kind in kinds), None)


def ask_lane(workbench: Workbench, asked: schemas.Ask) -> Lane:
    """Whether a model must be waited for."""
    workbench.path(asked.index)
    reads = all(kind in READ for kind in kinds_asked(workbench, asked))
    return "reader" if reads and asked.query.completion else "model"


def pair(workbench: Workbench, asked: schemas.Pair, tell: Tell) -> dict[str, Any]:
    """Which words of one example each word of the output leans on."""
    from dataclasses import asdict

    from headwater.answer.pairs import pairs

    index, query = workbench.index(asked.index), asked.query.query()
    return asdict(pairs(index, query, asked.position, method=workbench.method(asked.method)))


def verify(workbench: Workbench, asked: schemas.Verify, tell: Tell) -> dict[str, Any]:
    """An answer put to the test; models are trained again where a run and its base are known."""
    from headwater.evaluation.verify import verify as put_to_test

    index, base = workbench.index(asked.index), workbench.opening.base
    made = put_to_test(
        index,
        asked.query.query(),
        method=workbench.method(asked.method),
        top=asked.top,
        seeds=asked.seeds,
        group=None if asked.group is None else (asked.group[0], str(asked.group[1])),
        run=workbench.run,
        base=None if base is None else str(base),
        workers=1,  # in this thread: a fork of a server would hold its locks, and its port
    )
    return made.to_dict()


def load(workbench: Workbench, asked: schemas.OfIndex, tell: Tell) -> dict[str, Any]:
    """The model of an index, loaded now."""
    index = workbench.index(asked.index)
    kind = index.task.kind
    return {"index": asked.index, "kind": kind}


def _with_model(workbench: Workbench, asked: schemas.OfIndex) -> Lane:
    workbench.path(asked.index)  # what is not there is said at once
    return "model"


KINDS: dict[str, Kind] = {
    "generate": (schemas.Generate, generate, _with_model),
    "tokens": (schemas.Tokens, tokens, _with_model),
    "ask": (schemas.Ask, ask, ask_lane),
    "pair": (schemas.Pair, pair, _with_model),
    "verify": (schemas.Verify, verify, _with_model),
    "load": (schemas.OfIndex, load, _with_model),
}
