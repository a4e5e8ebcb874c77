"""facts: the demo's corpus, where the passages that state an answer are known.

Three questions of one answer: does a method find a passage that states it (retrieval)? Does one
more step on what it found make the answer likelier (tail patch)? Does training without it make the
answer less likely (leave-top-k-out)? A lexical search is hard to beat at the first, and the
TrackStar paper finds that the others are other questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater.corpus.corpus import Corpus
from headwater.evaluation.bank import Bank
from headwater.evaluation.board import Finding, Setting
from headwater.evaluation.presets import common as c
from headwater.evaluation.presets.lm_methods import Trained, lm_controls, lm_methods
from headwater.evaluation.removal import Removal
from headwater.evaluation.retrieval import RetrievalMetric
from headwater.evaluation.tail_patch import NATS, POINTS, TailPatch
from headwater.evaluation.trainers import LoopTrainer
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from headwater.training.facts import all_facts, fact_queries, facts_corpus
from headwater.training.next_step import next_step
from headwater.training.small_lm import DEMO_RECIPE, small_lm

if TYPE_CHECKING:
    from headwater.evaluation.metric import Figures, Metric, Scored
    from headwater.evaluation.presets.common import Asked
    from headwater.training.recipe import Recipe
    from headwater.training.run import TrainingRun

RELATION = "capital"
TINY_RELATIONS = ("capital", "demonym")


@dataclass(frozen=True)
class Sizes:
    """What the scale decides.

    Args:
        countries, relations: of the facts; None = all. queries, held_out: facts that are asked,
            and others of the same template for TrackStar's task Hessian. patched: documents that
            are stepped on. removal: queries that leave-top-k-out asks; k: how many documents.
    """

    countries: int | None = None
    relations: tuple[str, ...] | None = None
    queries: int = 40
    held_out: int = 40
    patched: int = 5
    removal: int = 4
    k: int = 5
    layers: int = 1
    width: int = 64
    vocab: int = 1024
    epochs: float = DEMO_RECIPE.epochs


FULL = Sizes()
TINY = Sizes(24, TINY_RELATIONS, 6, 8, 2, 2, 3, 1, 16, 320, 4)
NOT_HERE = ("magic",)  # too dear for a corpus of this size; small-lm has it


@dataclass(frozen=True)
class Facts:
    """The corpus with its questions, and a model trained on it."""

    task: CausalLM
    corpus: Corpus
    queries: list[Query]
    gold: list[tuple[str, ...]]
    held_out: list[Query]
    recipe: Recipe
    run: TrainingRun
    seconds: float
    initial: Mapping[str, Any]


def learnt(asked: Asked, sizes: Sizes) -> Facts:
    """Train a model of this size on the facts, or take it from the cache."""
    names = sorted({fact.country for fact in all_facts()})[: sizes.countries]
    corpus = facts_corpus(asked.seed, names, sizes.relations)
    texts = [str(document.content["text"]) for document in corpus.documents()]
    model, tokenizer = small_lm(
        texts, vocab=sizes.vocab, layers=sizes.layers, width=sizes.width, seed=asked.seed
    )
    task = CausalLM(model, tokenizer)
    initial = c.initial_state(task)
    recipe = replace(DEMO_RECIPE, seed=asked.seed, epochs=sizes.epochs, checkpoints=6)
    run, seconds = c.trained_once(task, corpus, recipe, asked.cache)
    asks = fact_queries(RELATION, names)
    # Every few countries of the alphabet, so that the questions do not depend on its beginning.
    some = asks[:: max(1, len(asks) // (sizes.queries + sizes.held_out))]
    chosen, rest = some[: 2 * sizes.queries : 2], some[1 : 2 * sizes.held_out : 2]
    queries = [Query(one.prompt, one.completion, name=one.gold[0]) for one in chosen]
    held_out = [Query(one.prompt, one.completion, name=one.gold[0]) for one in rest]
    gold = [one.gold for one in chosen]
    return Facts(task, corpus, queries, gold, held_out, recipe, run, seconds, initial)


def setting(asked: Asked) -> Setting:
    """The setting of the board."""
    sizes = TINY if asked.tiny else FULL
    it = learnt(asked, sizes)
    trained = Trained(it.task, it.recipe, it.run, it.initial, asked.seed, None, it.held_out)
    methods = [one for one in lm_methods(trained) if one.name not in NOT_HERE]
    metrics = asked.chosen_metrics(_metrics(asked, sizes, it))
    return Setting(
        "facts",
        _told(asked, sizes, it),
        asked.cache,
        it.task,
        it.corpus,
        it.queries,
        asked.chosen_methods(methods, lm_controls(asked.seed)),
        metrics,
        {"recipe": it.recipe.to_json()},
        it.seconds,
        next(iter(metrics[0].columns)),
        partial(_findings, sizes),
    )


def _metrics(asked: Asked, sizes: Sizes, it: Facts) -> list[Metric]:
    ids = [document.id for document in it.corpus.documents()]
    patch = TailPatch(
        it.task, it.corpus, next_step(it.run, it.task), it.queries, sizes.patched, gold=it.gold,
        cache=asked.cache / "patches", seed=asked.seed,
    )  # fmt: skip
    shown = [f"tail-patch@{sizes.patched} ({POINTS})"]
    shown += [f"tail-patch@{sizes.patched} less random ({unit})" for unit in (POINTS, NATS)]
    trainer = LoopTrainer(_untrained(it), it.corpus, it.recipe, it.queries)
    bank = Bank(asked.cache / "bank", trainer, asked.workers)
    removal = Removal(bank, [asked.seed], [sizes.k], draws=4, seed=asked.seed)
    return [
        RetrievalMetric(ids, it.gold, seed=asked.seed),
        c.Part(patch, keep=shown),
        c.Part(removal, sizes.removal, label="without"),
    ]


def _untrained(it: Facts) -> CausalLM:
    """The model as it was before the training, apart from the trained one."""
    import copy

    model = copy.deepcopy(it.task.model)
    model.load_state_dict(dict(it.initial))
    return CausalLM(model, it.task.tokenizer)


def _told(asked: Asked, sizes: Sizes, it: Facts) -> dict[str, Any]:
    return {
        "preset": "facts",
        "scale": asked.scale,
        "seed": asked.seed,
        "data": f"the demo's facts (countryinfo), {it.corpus.count()} sentences",
        "model": f"Llama, layers {sizes.layers}, width {sizes.width}, vocabulary {sizes.vocab}, "
        f"{sum(p.numel() for p in it.task.model.parameters()):,} parameters",
        "training": it.recipe.to_json(),
        "queries": f"{len(it.queries)} of relation {RELATION}; gold: all sentences that state it",
        "held out": f"{len(it.held_out)} other queries of the template, for TrackStar",
        "tail patch": f"one step on each of the {sizes.patched} best",
        "leave-top-k-out": f"k {sizes.k}, the first {sizes.removal} queries, 1 seed, 4 draws",
        "projection": "16 x 16 a layer, float32, for the views",
    }


def _findings(
    sizes: Sizes, scored: Mapping[str, Scored], figures: Mapping[str, Figures]
) -> list[Finding]:
    """The paper: lexical retrieval finds the statement, gradients find what moves the model."""
    patch = f"tail-patch@{sizes.patched} less random ({NATS})"
    return [
        _above(figures, "bm25", "trackstar", "MRR"),
        _above(figures, "trackstar", "bm25", patch),
    ]


def _above(figures: Mapping[str, Figures], one: str, other: str, column: str) -> Finding:
    titles = {"bm25": "BM25", "trackstar": "TrackStar"}
    claim = f"{column} of {titles[one]} is above that of {titles[other]}"
    a, b = c.figure(figures, one, column), c.figure(figures, other, column)
    if a is None or b is None:
        return Finding(claim, None, "no figure")
    return c.above(claim, a, b)
