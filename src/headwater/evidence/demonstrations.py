"""In-context demonstrations for a test input: TopK, then ConE (Peng et al., ACL 2024).

    choose the k demonstrations d of the first candidates with the least
    H(x | d) = H(d, x) - H(d) = - sum_t log p(x_t | d, x_<t)

x is the test input without its answer, d a training example with its own. The first candidates are
those of any method: similarity, as in the paper, or influence. What helps the model to understand
the input is thought to help it to answer; only forward passes are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.evidence.ranker import decoder
from headwater.evidence.texts import document_text, prompt_text
from headwater.tasks.encode import IGNORED
from headwater.tasks.query import Query
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.corpus.document import Document
    from headwater.index.index import Index
    from headwater.index.selection import Groups
    from headwater.methods.method import Method
    from headwater.tasks.causal_lm import CausalLM

BUDGET = 4096  # padded tokens of a batch


@dataclass(frozen=True)
class Demonstration:
    """A training example chosen as a demonstration.

    Args:
        id, position: of the example. score: the first method's, higher = nearer.
        entropy: nats of the whole test input after it; lower = better understood.
        cut: tokens left out of its start, to fit the model's window.
    """

    id: str
    position: int
    score: float
    entropy: float
    cut: int = 0


def demonstrations(
    index: Index,
    query: Query | str,
    *,
    method: Method | None = None,
    candidates: int = 30,
    k: int = 8,
    separator: str = "\n",
    render: Callable[[Document], str] | None = None,
    ids: Collection[str] | None = None,
    groups: Groups | None = None,
) -> list[Demonstration]:
    """The k training examples after which the model finds the test input least surprising.

    Args:
        index: training examples with a language model's task.
        query: the test input as text; of a Query its prompt is the input, while `method` sees the
            completion, too (give the text where the answer is not known).
        method: names the candidates; Dense when left out.
        candidates: how many of its best are tried. k: how many of them are returned.
        separator: stands between a demonstration and the input.
        render: an example's text as it will stand in the prompt; its own text when left out.
        ids, groups: only these examples, as in `hw.top`.

    Returns the demonstrations by rising entropy; equal ones in the method's order.

    Raises:
        InputError: for numbers out of range, a task that is no language model, or an input without
            text or longer than the model's window.
        NumericError: when the model's loss is not finite.
    """
    if not 1 <= k <= candidates:
        raise InputError(
            "k demonstrations are chosen among the candidates",
            expected=f"from 1 to {candidates}",
            found=k,
        )
    text = _input_text(query)
    task = _language_model(index)
    from headwater.methods.scoring import top

    asked = Query(prompt="", completion=text) if isinstance(query, str) else query
    used = method or _usual()
    # One without a word in common may still tell the model what is asked of it.
    (best,) = top(index, asked, candidates, method=used, ids=ids, groups=groups, unrelated=True)
    decode = decoder(index)
    shown = render or (lambda document: document_text(document, decode))
    texts = [shown(document) for document in index.documents(best.positions)]
    entropies = conditional_entropies(task, text, [one + separator for one in texts])
    found = [
        Demonstration(name, position, score, entropy, cut)
        for name, position, score, (entropy, cut) in zip(
            best.ids, best.positions, best.scores, entropies, strict=True
        )
    ]
    return sorted(found, key=lambda one: one.entropy)[:k]


def conditional_entropies(
    task: CausalLM, text: str, contexts: Sequence[str]
) -> list[tuple[float, int]]:
    """(- log p(text | context) in nats, tokens cut from the context's start) for each context.

    Context and text are tokenised as one; a token across their border counts as the text's.
    """
    import torch

    made = [_chunk(task, context, text) for context in contexts]
    values = np.zeros(len(made))
    lengths = [chunk.length for chunk, _ in made]
    with Progress("conditional entropy", len(made), "examples") as progress:
        for group in batches_by_length(lengths, BUDGET):
            with task.running(), torch.no_grad():
                loss = task.loss(task.collate([made[i][0] for i in group]))
            values[group] = loss.double().cpu().numpy()
            progress.advance(len(group))
    if not np.isfinite(values).all():
        raise NumericError(
            "The model's loss of the test input is not finite",
            do="try --dtype float32, or check its weights",
        )
    return [(float(value), cut) for value, (_, cut) in zip(values, made, strict=True)]


def _chunk(task: CausalLM, context: str, text: str) -> tuple[Chunk, int]:
    """Context and text as one chunk, loss on the text; the context's start is cut to fit."""
    from headwater.tasks.generate import positions

    start = len(context)
    encoded = task.encoder.spans(context + text, [(start, start + len(text))])
    ids, labels = encoded.ids, encoded.labels.copy()
    room = positions(task)
    front = int(task.encoder.bos is not None)
    cut = max(0, len(ids) - room)
    first = int(np.flatnonzero(labels != IGNORED)[0])
    if cut > max(0, first - max(front, 1)):
        raise InputError(
            "The test input is longer than the model's window",
            expected=f"less than {room} tokens",
            found=int((labels != IGNORED).sum()),
        )
    if cut:
        ids = np.concatenate([ids[:front], ids[front + cut :]])
        labels = np.concatenate([labels[:front], labels[front + cut :]])
    labels[:1] = IGNORED
    if not (labels != IGNORED).any():
        raise InputError(
            "Nothing predicts the test input", expected="a demonstration, or BOS, before it"
        )
    return Chunk({"input_ids": ids, "labels": labels}, 0, len(ids)), cut


def _input_text(query: Query | str) -> str:
    text = query if isinstance(query, str) else prompt_text(query)
    if not text:
        raise InputError(
            "The test input has no text",
            expected="the input as text, or a query with a prompt",
            found=repr(text) if isinstance(query, str) else query.describe(),
        )
    return text


def _language_model(index: Index) -> CausalLM:
    from headwater.tasks.causal_lm import CausalLM

    task: Any = index.task
    if not isinstance(task, CausalLM):
        raise InputError(
            "Demonstrations are chosen for a language model",
            expected="an index of a CausalLM, with or without features",
            found=f"a task of kind '{task.kind}'",
        )
    return task


def _usual() -> Method:
    from headwater.evidence.semantic import Dense

    return Dense()
