"""What a model makes of every labelled token at each checkpoint of a run: loss, right, error.

    loss = -log p_y,    right = (argmax p = y),    error = |p - onehot(y)|_2,    p = softmax(logits)

A classifier's example counts as one labelled token. The corpus streams once for each checkpoint,
in pieces whose tokens come in the same order every time, so that a token can be followed through
the run by its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import InputError, ResourceError
from headwater.engine.memory import out_of_memory
from headwater.engine.progress import Progress
from headwater.index.passes import document_ranges
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.encode import IGNORED
from headwater.tasks.task import dtype_name
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.task import Batch, Chunk, Task
    from headwater.training.run import Checkpoint

Array = np.ndarray[Any, Any]
Logits = Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor]

TOKENS = 4096  # padded tokens of a batch, at most
LOGIT_BYTES = 128 << 20  # logits of a batch; the softmax of a block comes on top
BLOCK = 1024  # labelled tokens whose softmax is held at a time


@dataclass(frozen=True)
class Classifier:
    """How to read the answers of a task that is no language model.

    Args:
        logits: `logits(model, batch) -> tensor [batch, classes]`; None where it was not given.
        labels: the column with the right classes.
    """

    logits: Logits | None = None
    labels: str = "y"


@dataclass(frozen=True)
class Outcome:
    """The labelled tokens of a piece of the corpus at one checkpoint.

    Args:
        owners: position of each token's document, int64 [n].
        loss, error: float64 [n]. right: bool [n]. The last two are empty where only the loss was
            asked for.
    """

    owners: Array
    loss: Array
    right: Array
    error: Array


Judged = tuple[Array, Array, Array, Array]  # rows of the batch, loss, right, error
Judge = Callable[["Task", "Batch"], Judged]
See = Callable[[int, int, Outcome], None]


def follow(index: Index, judge: Judge, checkpoints: Sequence[Checkpoint], see: See) -> None:
    """Call `see(checkpoint's place, piece's number, outcome)` for every checkpoint and piece.

    The model is left as it was found, also when `judge` or `see` raises.
    """
    task = index.task
    total = len(index) * len(checkpoints)
    with Progress("reading the corpus", total, "examples") as progress:
        for place, checkpoint in enumerate(checkpoints):
            with at(task, checkpoint), task.running(), torch.no_grad():
                for number, (_, positions, chunks) in enumerate(document_ranges(index)):
                    see(place, number, _piece(task, judge, positions, chunks))
                    progress.advance(len(positions))


def by_logits(classifier: Classifier) -> Judge:
    """The judge that takes loss, right and error from the logits."""

    def judge(task: Task, batch: Batch) -> Judged:
        logits, right, rows, _ = true_logits(task, classifier, batch, "This score")
        return rows.cpu().numpy(), *_judged(logits, right)

    return judge


def by_loss(task: Task, batch: Batch) -> Judged:
    """The judge that asks the task for its loss only: of each token, or of each example."""
    if isinstance(task, CausalLM):
        loss, rows, _ = task.token_losses(batch)
    else:
        loss = task.loss(batch)
        rows = torch.arange(len(loss))
    nothing = np.zeros(0)
    return rows.cpu().numpy(), loss.double().cpu().numpy(), nothing.astype(bool), nothing


def batches_of(
    positions: Sequence[int], made: Sequence[Sequence[Chunk]], budget: int
) -> list[tuple[list[Chunk], Array]]:
    """The chunks made of these documents in batches, each with the positions of its documents."""
    pairs = [
        (chunk, owner) for owner, chunks in zip(positions, made, strict=True) for chunk in chunks
    ]
    groups = batches_by_length([chunk.length for chunk, _ in pairs], budget)
    return [
        ([pairs[i][0] for i in group], np.asarray([pairs[i][1] for i in group], dtype=np.int64))
        for group in groups
    ]


def budget_of(task: Task) -> int:
    """Tokens of a batch whose logits stay within bounds."""
    if not isinstance(task, CausalLM):
        return TOKENS
    return max(1, min(TOKENS, LOGIT_BYTES // (4 * task.vocabulary)))


def true_logits(
    task: Task, classifier: Classifier, batch: Batch, what: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [n, classes] and right classes [n] of the labelled tokens, with their rows, columns.

    `columns` are the positions that predict a token (those before it); zeros for a classifier.

    Raises:
        InputError: when the logits are not given, or are not of that shape; `what` asked for them.
    """
    if isinstance(task, CausalLM):
        labels = batch["labels"][:, 1:]
        rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
        logits: torch.Tensor = task.model(input_ids=batch["input_ids"], use_cache=False).logits
        return logits[rows, columns], labels[rows, columns], rows, columns
    logits, right = _class_logits(task, classifier, batch, what)
    rows = torch.arange(len(right), device=right.device)
    return logits, right, rows, torch.zeros_like(rows)


def _class_logits(
    task: Task, classifier: Classifier, batch: Batch, what: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if classifier.logits is None:
        raise InputError(
            f"{what} needs the logits of the task, which has none by itself",
            expected="logits=function (model, batch) -> [batch, classes], and labels=column",
            do="give them, or use a score that needs the loss only: loss, self-influence",
        )
    if classifier.labels not in batch:
        raise InputError(
            "There is no such column of labels",
            expected=f"labels= one of {', '.join(batch)}",
            found=classifier.labels,
        )
    right = batch[classifier.labels]
    logits = classifier.logits(task.model, batch)
    if logits.dim() != 2 or len(logits) != len(right):
        raise InputError(
            "Logits are a row of classes for each example",
            expected=f"[{len(right)}, classes]",
            found=f"shape {list(logits.shape)}",
        )
    whole = not right.is_floating_point() and right.dim() == 1
    if not whole or int(right.min()) < 0 or int(right.max()) >= logits.shape[1]:
        raise InputError(
            f"The column {classifier.labels} does not hold classes",
            expected=f"one whole number from 0 to {logits.shape[1] - 1} for each example",
            found=f"{dtype_name(right.dtype)} {list(right.shape)}"
            + (f" from {int(right.min())} to {int(right.max())}" if whole else ""),
        )
    return logits, right.long()


def _piece(
    task: Task, judge: Judge, positions: Sequence[int], made: Sequence[Sequence[Chunk]]
) -> Outcome:
    found: list[Judged] = []
    for chunks, owners in batches_of(positions, made, budget_of(task)):
        try:
            rows, loss, right, error = judge(task, task.collate(chunks))
        except (RuntimeError, MemoryError) as reason:
            if not out_of_memory(reason):
                raise
            raise ResourceError(
                f"Memory ran out on {len(chunks)} chunks of {chunks[0].length} tokens",
                do="use a smaller dtype, or a larger machine",
            ) from reason
        found.append((owners[rows], loss, right, error))
    return Outcome(*(np.concatenate(one) for one in zip(*found, strict=True)))


def _judged(logits: torch.Tensor, labels: torch.Tensor) -> tuple[Array, Array, Array]:
    """Loss, right or wrong and error of each row, a block of softmax at a time."""
    made: list[tuple[Array, Array, Array]] = []
    for start in range(0, len(labels), BLOCK):
        part, wanted = logits[start : start + BLOCK], labels[start : start + BLOCK]
        part = part if part.dtype == torch.float64 else part.float()
        lines = torch.arange(len(wanted), device=part.device)
        loss = part.logsumexp(dim=1) - part[lines, wanted]
        right = part.argmax(dim=1) == wanted
        error = part.softmax(dim=1)
        error[lines, wanted] -= 1
        norms = error.norm(dim=1)
        made.append(
            (loss.double().cpu().numpy(), right.cpu().numpy(), norms.double().cpu().numpy())
        )
    loss, right, error = (np.concatenate(one) for one in zip(*made, strict=True))
    return loss, right & np.isfinite(loss), error
