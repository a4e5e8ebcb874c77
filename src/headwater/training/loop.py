"""A small deterministic training loop, for models that are trained many times to learn the truth.

The same seed, corpus, machine and thread count give bit-equal weights. The order of the examples
depends only on the seed and on the order of the documents. Loss is the mean over the labelled
tokens of a batch (over its examples where there are no tokens), as transformers.Trainer has it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.training.parameter_groups import trainable_groups
from headwater.training.recipe import Recipe
from headwater.training.run import RUN_FILE, Checkpoint, TrainingRun, checkpoint_folder

if TYPE_CHECKING:
    import torch

    from headwater.corpus.corpus import Corpus
    from headwater.corpus.document import Document
    from headwater.tasks.task import Chunk, Task

OnStep = Callable[[int, float], None]


def train(
    task: Task,
    corpus: Corpus,
    recipe: Recipe,
    *,
    out: str | Path | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    weights: Mapping[str, float] | None = None,
) -> TrainingRun:
    """Train `task.model` in place on every document of `corpus`.

    Args:
        task: the model and its loss; parameters with requires_grad are trained.
        corpus: the examples, all chunked by the task and kept in memory.
        recipe: how; see Recipe.
        out: a folder for `checkpoint-<step>/` and `run.json`; None keeps nothing on disk.
        on_step: called as on_step(step, loss) after each step, counted from 1.
        progress: show a bar with the loss.
        weights: of documents by id, 1 where none is given. A document of weight 0 keeps its place
            in its batch, and in the number that the batch's loss is divided by.

    Returns the run, with `learning_rates` and `losses` of every step. The model is left in the
    mode (training or evaluation) it was in. Raises InputError when there is nothing to train on,
    and NumericError, naming the step and the documents, when a loss or gradient is not finite.
    """
    import torch

    chunks, owners = all_chunks(task, corpus)
    total = recipe.total_steps(len(chunks))
    folder = None if out is None else Path(out)
    keep = set[int]() if folder is None else set(recipe.checkpoint_steps(total))
    optimizer = make_optimizer(task.model, recipe)
    rates = [recipe.learning_rate_at(step, total) for step in range(1, total + 1)]
    losses: list[float] = []
    saved: list[Checkpoint] = []
    bar = Progress("training", total if progress else None, "step")
    with torch.random.fork_rng(devices=_cuda_devices(_trained(optimizer))), bar:
        torch.manual_seed(recipe.seed)
        with _in_mode(task.model, recipe.dropout):
            for step, batch in enumerate(batches(len(chunks), recipe, total), start=1):
                _set_rate(optimizer, rates[step - 1])
                names = [owners[i] for i in batch]
                given = None if weights is None else [weights.get(name, 1) for name in names]
                try:
                    loss = _step(task, [chunks[i] for i in batch], optimizer, recipe, given)
                except _NotFiniteError as error:
                    raise error.told(step, names) from None
                losses.append(loss)
                if on_step is not None:
                    on_step(step, loss)
                if progress:
                    bar.advance(1, f"loss {loss:.2f}")
                if folder is not None and step in keep:
                    saved.append(_save(folder, task, optimizer, step, rates[step - 1]))
    run = TrainingRun(tuple(saved), total, recipe, tuple(rates), tuple(losses))
    if folder is not None:
        _write_run(folder, run)
    return run


@contextmanager
def _in_mode(model: torch.nn.Module, training: bool) -> Generator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trainable parameters, decayed ones in group 0.

    Raises InputError when no parameter is trainable.
    """
    import torch

    decayed, plain = trainable_groups(model)
    if not decayed and not plain:
        raise InputError(
            "The model has nothing to train", expected="parameters with requires_grad", found="none"
        )
    groups: list[dict[str, Any]] = [
        {"params": list(decayed.values()), "weight_decay": recipe.weight_decay},
        {"params": list(plain.values()), "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)
    # The fused kernel is one call per step: on a small model it halves the time of a step.
    return torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True
    )


def all_chunks(task: Task, corpus: Corpus) -> tuple[list[Chunk], list[str]]:
    """Every chunk of the corpus in its order, and the id of the document each one is of."""
    chunks: list[Chunk] = []
    owners: list[str] = []
    document: Document
    for document in corpus.documents():
        for chunk in task.chunks(document):
            chunks.append(chunk)
            owners.append(document.id)
    if not chunks:
        raise InputError(
            "The corpus has nothing to train on",
            expected="at least one document",
            found="no tokens",
        )
    return chunks, owners


def batches(count: int, recipe: Recipe, total: int) -> Iterator[list[int]]:
    """`total` batches of chunk numbers, by a permutation of its own for each epoch."""
    made = epoch = 0
    while True:
        seed = np.random.SeedSequence((recipe.seed, epoch))
        order = np.random.Generator(np.random.PCG64(seed)).permutation(count).tolist()
        for start in range(0, count, recipe.batch_size):
            if made == total:
                return
            made += 1
            yield order[start : start + recipe.batch_size]
        epoch += 1


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _step(
    task: Task,
    chunks: Sequence[Chunk],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    weights: Sequence[float] | None = None,
) -> float:
    """One optimizer step; the batch's mean loss before it."""
    import torch

    batch = task.collate(chunks)
    losses = task.loss(batch)
    if weights is not None:
        losses = losses * losses.new_tensor(weights)
    mean = losses.sum() / labelled(batch, len(chunks))
    value = float(mean.detach())
    if not math.isfinite(value):
        bad = [i for i, loss in enumerate(losses.tolist()) if not math.isfinite(loss)]
        raise _NotFiniteError("loss", value, bad)
    optimizer.zero_grad(set_to_none=True)
    mean.backward()
    limit = math.inf if recipe.grad_clip is None else recipe.grad_clip
    norm = float(torch.nn.utils.clip_grad_norm_(_trained(optimizer), limit))
    if not math.isfinite(norm):
        raise _NotFiniteError("gradient", norm, [])
    optimizer.step()
    return value


def labelled(batch: dict[str, torch.Tensor], examples: int) -> int:
    """Labelled tokens of a batch of sequences (the first is never predicted), else its examples."""
    rows = labelled_rows(batch)
    return examples if rows is None else max(1, int(rows.sum()))


def labelled_rows(batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Labelled tokens of each example of a batch, int64 [batch]; None of what is no sequences."""
    labels = batch.get("labels")
    if labels is None or labels.dim() != 2 or "input_ids" not in batch:
        return None
    return (labels[:, 1:] != -100).sum(dim=1)


class _NotFiniteError(Exception):
    """A step met a number that is not finite, in these places of its batch (none: anywhere)."""

    def __init__(self, what: str, value: float, places: Sequence[int]) -> None:
        super().__init__(what)
        self.what, self.value, self.places = what, value, places

    def told(self, step: int, owners: Sequence[str]) -> NumericError:
        """The same for a person: with the step and the documents."""
        names = list(dict.fromkeys([owners[i] for i in self.places] or owners))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return NumericError(
            f"The {self.what} is not finite at step {step}, document {', '.join(names[:3])}{more}",
            expected="a finite number",
            found=self.value,
            do="lower the learning rate, or look at these documents",
        )


def _trained(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _cuda_devices(parameters: Sequence[torch.Tensor]) -> list[int]:
    return sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})


def _save(
    out: Path, task: Task, optimizer: torch.optim.Optimizer, step: int, rate: float
) -> Checkpoint:
    """Write a checkpoint under a temporary name, then rename: it is there whole or not at all."""
    from headwater.training.optimizer_state import write_optimizer

    place = checkpoint_folder(out, step)
    temporary = out / f".{place.name}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_model(task.model, temporary)
    tokenizer = getattr(task, "tokenizer", None)
    if tokenizer is not None and hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(temporary))
    state = temporary / "optimizer.safetensors"
    write_optimizer(state, task.model, optimizer, step)
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)
    return Checkpoint(place, step, rate, place / state.name)


def save_model(model: torch.nn.Module, folder: Path) -> None:
    """Weights as safetensors, by `save_pretrained` (which adds the config) where there is one."""
    if hasattr(model, "save_pretrained"):
        save: Any = model.save_pretrained
        save(str(folder))
        return
    from safetensors.torch import save_model as save_tensors

    save_tensors(model, str(folder / "model.safetensors"))


def _write_run(out: Path, run: TrainingRun) -> None:
    recipe = run.recipe
    data = {
        "format": 1,
        "recipe": None if recipe is None else recipe.to_json(),
        "steps": run.steps,
        "checkpoints": [checkpoint.step for checkpoint in run.checkpoints],
        "learning_rates": run.learning_rates,
        "losses": run.losses,
    }
    temporary = out / f".{RUN_FILE}.partial"
    temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / RUN_FILE)
