"""small-lm: a transformer of some fifty thousand weights on real English, from nothing.

The text is the reference manual that Python ships (`pydoc_data.topics`), cut into passages; it
differs a little between versions of Python, so its hash stands in the recipe. Two banks ask two
questions: what training on half the passages would do, and what this one training would have done
had some passages weighed nothing. The preset is there to tell whether the order of methods that
the field reports holds on either. The training is smooth on purpose (RECIPE): where small changes
grow, the exact derivative of a training foretells nothing that one could see.
"""

from __future__ import annotations

import hashlib
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.corpus import Corpus
from headwater.engine.errors import InputError
from headwater.evaluation.agreement import Agreement
from headwater.evaluation.bank import Bank
from headwater.evaluation.board import Finding, Setting
from headwater.evaluation.lds import LDSMetric
from headwater.evaluation.presets import common as c
from headwater.evaluation.presets.lm_methods import Trained, lm_controls, lm_methods
from headwater.evaluation.subsets import left_out
from headwater.evaluation.trainers import LoopTrainer
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from headwater.training.loop import all_chunks
from headwater.training.recipe import Recipe
from headwater.training.small_lm import small_lm

if TYPE_CHECKING:
    from headwater.evaluation.metric import Figures, Metric, Scored
    from headwater.evaluation.presets.common import Asked
    from headwater.training.run import TrainingRun

WORDS = 16  # of a passage, at most: some 40 tokens
FEWEST_WORDS = 10
PROMPT_WORDS = 3  # of a held-out sentence that are given, and not explained


@dataclass(frozen=True)
class Sizes:
    """What the scale decides."""

    passages: int = 300
    queries: int = 16
    magic: int = 8  # queries of those
    vocab: int = 512
    layers: int = 2
    width: int = 32
    epochs: int = 16
    subsets: int = 64
    seeds: int = 2
    fixed: int = 64  # trials of the fixed bank


FULL = Sizes()
TINY = Sizes(64, 4, 2, 300, 1, 16, 3, 8, 2, 8)
FIXED_SHARE = 0.03  # of the passages that weigh nothing in a trial of the fixed bank
# Smooth, so that a few passages weighing nothing is still a small change: few steps of large
# batches, and an eps that counts beside sqrt(v). With the usual 1e-8 a coordinate's step is of full
# size however small its gradient, and a change of its sign is a jump.
RECIPE = Recipe(
    batch_size=60,
    learning_rate=1e-2,
    schedule="linear",
    warmup_steps=10,
    betas=(0.9, 0.99),
    eps=1e-3,
    dropout=False,
    checkpoints=6,
)
ORDER = ("magic", ">"), ("ekfac", ">="), ("source", ">"), ("trackstar", ">"), ("gradcos", ">")


def manual() -> list[str]:
    """Sentences of Python's manual, each once, in its order; code and tables are left out."""
    from pydoc_data.topics import topics

    seen: dict[str, None] = {}
    for name in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[name]):
            if not re.match(r"[A-Z]", paragraph) or re.search(r"[*=+|~]{3}|::=", paragraph):
                continue
            for sentence in re.split(r"(?<=[.!?]) +(?=[A-Z])", " ".join(paragraph.split())):
                if sentence.endswith((".", "!", "?")):
                    seen.setdefault(sentence)
    return list(seen)


def passages(sentences: Sequence[str]) -> list[str]:
    """Sentences one after the other in passages of a few tens of words; long ones are cut."""
    made: list[str] = []
    words: list[str] = []
    for sentence in sentences:
        more = sentence.split()
        if words and len(words) + len(more) > WORDS:
            made.append(" ".join(words))
            words = []
        words = [*words, *more][:WORDS]
    made.append(" ".join(words))
    return [one for one in made if len(one.split()) >= FEWEST_WORDS]


def texts(sizes: Sizes, seed: int) -> tuple[list[str], list[str]]:
    """Passages to train on, and sentences held out, which are in none of them.

    Raises:
        InputError: when Python ships without its manual.
    """
    try:
        sentences = manual()
    except ImportError as error:
        raise InputError(
            "The text is Python's own manual, which this Python lacks",
            expected="the module pydoc_data.topics",
        ) from error
    random = np.random.Generator(np.random.PCG64(seed))
    whole = [one for one in sentences if FEWEST_WORDS <= len(one.split()) <= WORDS]
    held = [whole[i] for i in random.permutation(len(whole))[: sizes.queries]]
    rest = passages([one for one in sentences if one not in set(held)])
    if len(rest) < sizes.passages:
        raise InputError(
            "Python's manual is too short", expected=f"{sizes.passages} passages", found=len(rest)
        )
    chosen = random.permutation(len(rest))[: sizes.passages]
    return [rest[i] for i in chosen], held


def setting(asked: Asked) -> Setting:
    """The setting; trains the model, or takes it from the cache."""
    sizes = TINY if asked.tiny else FULL
    recipe = replace(RECIPE, seed=asked.seed, epochs=sizes.epochs)
    train_on, held = texts(sizes, asked.seed)
    corpus = Corpus.from_documents(
        [{"id": f"manual-{i}", "text": text} for i, text in enumerate(train_on)]
    )
    queries = [_query(sentence, f"held-out-{i}") for i, sentence in enumerate(held)]
    model, tokenizer = small_lm(
        train_on, vocab=sizes.vocab, layers=sizes.layers, width=sizes.width, max_length=128,
        seed=asked.seed,
    )  # fmt: skip
    task = CausalLM(model, tokenizer)
    initial = c.initial_state(task)
    run, seconds = c.trained_once(task, corpus, recipe, asked.cache)
    trainer = LoopTrainer(task, corpus, recipe, queries, partial(_begun, model))
    metrics = asked.chosen_metrics(_metrics(asked, sizes, trainer))
    trained = Trained(task, recipe, run, initial, asked.seed, sizes.magic)
    return Setting(
        "small-lm",
        _told(asked, sizes, recipe, train_on, model),
        asked.cache,
        task,
        corpus,
        queries,
        asked.chosen_methods(lm_methods(trained), lm_controls(asked.seed)),
        metrics,
        {"recipe": recipe.to_json()},
        seconds,
        next(iter(metrics[0].columns)),
        partial(_findings, metrics),
        (
            _learnt(task, corpus, run, recipe),
            "Gradient methods are given every linear layer; embeddings only MAGIC takes.",
        ),
    )


def _query(sentence: str, name: str) -> Query:
    words = sentence.split()
    prompt, rest = " ".join(words[:PROMPT_WORDS]), " ".join(words[PROMPT_WORDS:])
    return Query(prompt, f" {rest}", name=name)


def _learnt(task: CausalLM, corpus: Corpus, run: TrainingRun, recipe: Recipe) -> str:
    """How far the loss fell, beside what the frequencies of tokens alone would give."""
    chunks, _ = all_chunks(task, corpus)
    labels = np.concatenate([task.collate([one])["labels"][0, 1:].numpy() for one in chunks])
    counts = np.bincount(labels[labels >= 0])
    share = counts[counts > 0] / counts.sum()
    last = np.mean(run.losses[-math.ceil(len(chunks) / recipe.batch_size) :])
    return (
        f"The loss fell from {run.losses[0]:.2f} to {last:.2f} nats a token over the training; "
        f"the frequencies of tokens alone give {-share @ np.log(share):.2f}."
    )


def _begun(model: Any, seed: int) -> Mapping[str, Any]:
    """The weights that a training of this seed begins with."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(model)(model.config).state_dict()


def _metrics(asked: Asked, sizes: Sizes, trainer: LoopTrainer) -> list[Metric]:
    bank = Bank(asked.cache / "bank", trainer, asked.workers)
    halves = left_out(sizes.passages, sizes.subsets, 0.5, asked.seed)
    few = left_out(sizes.passages, sizes.fixed, FIXED_SHARE, asked.seed + 1)
    seeds = range(asked.seed, asked.seed + sizes.seeds)
    return [
        LDSMetric(bank, halves, seeds, seed=asked.seed),
        LDSMetric(
            bank, few, [asked.seed], kind="fixed", name="lds-fixed", label="LDS, fixed order",
            seed=asked.seed,
        ),
        c.AgreementWith("magic", "MAGIC", partial(Agreement, seed=asked.seed)),
    ]  # fmt: skip


def _told(
    asked: Asked, sizes: Sizes, recipe: Recipe, train_on: Sequence[str], model: Any
) -> dict[str, Any]:
    """The recipe of the whole board."""
    text = hashlib.sha256("\n".join(train_on).encode()).hexdigest()[:16]
    return {
        "preset": "small-lm",
        "scale": asked.scale,
        "seed": asked.seed,
        "data": f"{len(train_on)} passages of at most {WORDS} words of pydoc_data.topics",
        "text": f"sha256 {text} (Python {platform.python_version()})",
        "model": f"Llama, {sizes.layers} layers, width {sizes.width}, vocabulary {sizes.vocab}, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters",
        "training": recipe.to_json(),
        "queries": f"{sizes.queries} sentences held out, from their word {PROMPT_WORDS + 1} on; "
        f"MAGIC the first {sizes.magic}",
        "resampled": f"{sizes.subsets} halves x {sizes.seeds} seeds, other initial weights for "
        "every seed",
        "fixed": f"{sizes.fixed} trials in which {FIXED_SHARE:.0%} of the passages weigh nothing",
        "damping": "every method's own",
        "projection": "16 x 16 a layer, float32, for the views",
    }


def _findings(
    chosen: Sequence[Metric], scored: Mapping[str, Scored], figures: Mapping[str, Figures]
) -> list[Finding]:
    """Whether the order of the field's papers holds, on each bank."""
    made: list[Finding] = []
    for metric in chosen:
        if isinstance(metric, LDSMetric):
            made.append(c.order(metric, scored, [*ORDER, ("random", "")]))
            made.append(c.contains_zero(figures, metric.label))
    return made
