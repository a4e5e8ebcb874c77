"""VoG: the variance of gradients over the checkpoints of a run (Agarwal et al. 2022).

    S_k = d (logits of the right tokens, summed) / d (input embeddings)  at checkpoint k of K
    VoG = mean over inputs and dimensions of sqrt(1/K sum_k (S_k - mean S)^2)

Easy examples settle early; those whose gradients still move late are hard. A language model's
inputs are the embeddings of the tokens from which a labelled one is predicted. Gradients of all
checkpoints would not fit in memory: documents are taken in blocks, and all checkpoints are loaded
once for each block, with a running mean and variance in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.engine.errors import InputError, ResourceError
from headwater.engine.memory import out_of_memory
from headwater.engine.progress import Progress
from headwater.index.passes import document_ranges
from headwater.methods.outcome_scores import Means, Scored
from headwater.methods.outcomes import Classifier, batches_of, budget_of, true_logits
from headwater.tasks.causal_lm import CausalLM
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.tasks.task import Batch, Chunk, Task
    from headwater.training.run import Checkpoint

Array = np.ndarray[Any, Any]
Part = tuple[list["Chunk"], Array]  # a batch and the positions of its documents

MEMORY = 256 << 20  # bytes of running means and variances
TOKENS = 1024  # of a batch, at most
PIECE = 16  # documents of a step while a block is filled


def vog(
    index: Index,
    checkpoints: Sequence[Checkpoint],
    classifier: Classifier,
    *,
    inputs: str | None = None,
    log_odds: bool = False,
    memory: int = MEMORY,
) -> Scored:
    """Standard deviation of the gradient over the checkpoints, mean over inputs and dimensions.

    Args:
        index, checkpoints: what is read where. classifier: of a task that is no language model.
        inputs: what is differentiated: a column of real numbers, or the name of a module whose
            output is taken; the token embeddings of a language model when left out.
        log_odds: of the right tokens instead of their logits.
        memory: bytes that the running means and variances may take.
    """
    task = index.task
    gradient = _Gradients(task, classifier, inputs, log_odds)
    spread = Means(1, len(index))
    squares = Means(len(checkpoints), len(index))
    with Progress("gradients", len(index) * len(checkpoints), "examples") as progress:
        for block in _blocks(index, gradient, memory):
            running = [_Running() for _ in block]
            share = len({owner for _, owners in block for owner in owners.tolist()}) / len(block)
            for place, checkpoint in enumerate(checkpoints):
                with at(task, checkpoint):
                    for (chunks, owners), moments in zip(block, running, strict=True):
                        rows, found = gradient(task.collate(chunks))
                        moments.owners = owners[rows]
                        moments.add(found)
                        squares.add(place, owners[rows], _mean_square(found))
                        progress.advance(share)
            for moments in running:
                spread.add(0, moments.owners, moments.deviation())
    sizes = np.sqrt(squares.made()).astype(np.float32)
    return Scored(spread.made()[0], sizes, ["by checkpoint: root mean square of the gradient"])


class _Running:
    """Welford's running mean and sum of squared differences of a batch's gradients."""

    def __init__(self) -> None:
        self.owners: Array = np.zeros(0, np.int64)
        self.count = 0
        self.mean = self.squares = torch.zeros(0)

    def add(self, found: torch.Tensor) -> None:
        """Take in the gradients at one more checkpoint, [n, dimensions]."""
        self.count += 1
        if self.count == 1:
            self.mean, self.squares = found.clone(), torch.zeros_like(found)
            return
        away = found - self.mean
        self.mean += away / self.count
        self.squares += away * (found - self.mean)

    def deviation(self) -> Array:
        """Standard deviation over the checkpoints, mean over dimensions, float64 [n]."""
        return (self.squares / self.count).sqrt().mean(dim=1).double().cpu().numpy()


def _mean_square(found: torch.Tensor) -> Array:
    return found.square().mean(dim=1).double().cpu().numpy()


class _Gradients:
    """Gradients of the right tokens' logits at what the model takes as its input."""

    def __init__(
        self, task: Task, classifier: Classifier, inputs: str | None, log_odds: bool
    ) -> None:
        self.task, self.classifier, self.log_odds = task, classifier, log_odds
        self.module: torch.nn.Module | None = None
        self.column: str | None = None
        modules = dict(task.model.named_modules())
        if inputs is not None and inputs in modules:
            self.module = modules[inputs]
        elif isinstance(task, CausalLM) and inputs is None:
            self.module = task.model.get_input_embeddings()  # pyright: ignore
        elif inputs is None or isinstance(task, CausalLM):
            raise InputError(
                "VoG differentiates in the input of the model",
                expected="inputs= a column of real numbers, or the name of a module (embeddings)",
                found=inputs if inputs is not None else "nothing",
            )
        else:
            self.column = inputs

    def __call__(self, batch: Batch) -> tuple[Array, torch.Tensor]:
        """Rows of the batch [n], and the gradient at each input [n, dimensions]."""
        caught: list[torch.Tensor] = []

        def catch(_: Any, __: Any, output: Any) -> torch.Tensor:
            if not isinstance(output, torch.Tensor) or not output.is_floating_point():
                raise InputError(
                    "This module's output is no input to differentiate in",
                    expected="a module that gives one tensor of real numbers",
                    found=type(output).__name__,
                )
            caught.append(output.detach().clone().requires_grad_())
            return caught[-1].clone()  # what follows may change it in place

        if self.column is not None:
            caught.append(self._real(batch))
            batch = batch | {self.column: caught[-1].clone()}
        handle = None if self.module is None else self.module.register_forward_hook(catch)
        try:
            with self.task.running(), torch.enable_grad():
                logits, right, rows, columns = true_logits(self.task, self.classifier, batch, "VoG")
                total = _of_the_right(logits, right, self.log_odds)
                if len(caught) != 1 or not total.requires_grad:
                    raise InputError(
                        "The logits do not depend on the inputs once",
                        expected="an input that the model reads one time, with a gradient",
                        found=f"{len(caught)} readings",
                    )
                (found,) = torch.autograd.grad(total, caught)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise ResourceError(
                "Memory ran out on gradients of a batch", do="use a smaller max_length"
            ) from error
        finally:
            if handle is not None:
                handle.remove()
        at_inputs = found[rows, columns] if isinstance(self.task, CausalLM) else found[rows]
        wide = at_inputs if at_inputs.dtype == torch.float64 else at_inputs.float()
        return rows.cpu().numpy(), wide.reshape(len(rows), -1)

    def _real(self, batch: Batch) -> torch.Tensor:
        column = batch.get(self.column or "")
        if column is None or not column.is_floating_point():
            raise InputError(
                f"There is no column {self.column} of real numbers, and no module of that name",
                expected="inputs= a column of real numbers, or a module's name",
                found=", ".join(batch),
            )
        return column.detach().clone().requires_grad_()


def _of_the_right(logits: torch.Tensor, right: torch.Tensor, log_odds: bool) -> torch.Tensor:
    """Sum of the right classes' logits, or log-odds."""
    lines = torch.arange(len(right), device=logits.device)
    chosen = logits[lines, right]
    if log_odds:
        others = logits.clone()
        others[lines, right] = float("-inf")
        chosen = chosen - others.logsumexp(dim=1)
    return chosen.sum()


def _blocks(index: Index, gradient: _Gradients, memory: int) -> Iterator[list[Part]]:
    """Documents in blocks of batches whose running sums stay within `memory`."""
    task = index.task
    probe = index.chunks([0])[0][:1]
    _, found = gradient(task.collate(probe))
    per_token = found.shape[1] * found.element_size() * 3  # mean, squares, one in the making
    block: list[Part] = []
    held = 0
    for _, positions, cut in document_ranges(index, size=PIECE):
        made = batches_of(positions, cut, min(TOKENS, budget_of(task)))
        size = sum(chunk.length for chunks, _ in made for chunk in chunks) * per_token
        if block and held + size > memory:
            yield block
            block, held = [], 0
        block, held = block + made, held + size
    if block:
        yield block
