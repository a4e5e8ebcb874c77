"""Packing: documents end to end, cut into full windows, for models that were trained that way.

A packed window's gradient cannot be divided among its documents (each attends to those before it),
so the window itself is the example; its metadata names the documents in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from headwater.corpus.content import check_renames, detect
from headwater.corpus.corpus import Corpus
from headwater.corpus.rows import BadRow, Row
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM


class PackedRows:
    """Windows of `max_length` tokens over the documents of a corpus, made as they are read."""

    def __init__(self, task: CausalLM, corpus: Corpus) -> None:
        self.task, self.corpus = task, corpus
        self.name = "the packed corpus"

    def rows(self) -> Iterator[Row | BadRow]:
        """Full windows in order; the last one may be shorter."""
        ids: list[int] = []
        labels: list[int] = []
        names: list[tuple[str, int]] = []  # document and its tokens in the window being filled
        number, size = 0, self.task.max_length
        for document in self.corpus.documents():
            try:
                encoded = self.task.encode(document)
            except InputError as error:
                yield BadRow(f"document {document.id}", 1, str(error))
                continue
            at, new_labels = encoded.ids.tolist(), encoded.labels.tolist()
            while at:
                room = size - len(ids)
                ids += at[:room]
                labels += new_labels[:room]
                names.append((document.id, min(room, len(at))))
                at, new_labels = at[room:], new_labels[room:]
                if len(ids) == size:
                    if learnable(labels):
                        yield _window(number, ids, labels, names)
                    number, ids, labels, names = number + 1, [], [], []
        if learnable(labels):
            yield _window(number, ids, labels, names)

    def describe(self) -> list[dict[str, Any]]:
        """The corpus's own sources, and how they were packed."""
        packing = {"name": "packing", "max_length": self.task.max_length}
        return [*self.corpus.describe()["sources"], packing]


def learnable(labels: list[int]) -> bool:
    """Whether a window holds a token that is learnt; its first one is predicted by nothing."""
    return any(label >= 0 for label in labels[1:])


def _window(number: int, ids: list[int], labels: list[int], names: list[tuple[str, int]]) -> Row:
    documents = [{"id": name, "tokens": count} for name, count in names]
    name = f"window-{number}:{names[0][0]}"
    values = {"id": name, "input_ids": ids, "labels": labels, "documents": documents}
    return Row("packed", number + 1, values)


def pack(task: CausalLM, corpus: Corpus) -> Corpus:
    """`corpus` as windows of the task's `max_length` tokens, each an example of its own.

    Args:
        task: its tokenizer and BOS/EOS conventions join the documents. corpus: what is packed.

    Returns:
        A corpus of kind "tokens" with ids `window-<number>:<its first document>`; metadata
        `documents` lists the ids and token counts of the documents in each.
    """
    rows = PackedRows(task, corpus)
    columns = ["id", "input_ids", "labels", "documents"]
    return Corpus(rows, detect(columns, check_renames(None), None, rows.name))
