"""The methods that the boards of language models compare, on one run of our own loop.

All gradient methods are given the same layers: every linear one, the output head among them (the
words of a small model are learnt there). MAGIC takes all parameters, embeddings too. Methods that
take Adam's steps apart take them with the training's own eps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwater.evaluation.candidates import Candidate
from headwater.evaluation.own_loss import OwnLoss
from headwater.evidence.lexical import BM25
from headwater.evidence.random_scores import Random
from headwater.evidence.repsim import RepSim
from headwater.evidence.semantic import Dense
from headwater.gradients.features import Features
from headwater.methods.datainf import DataInf
from headwater.methods.ekfac import EKFAC, KFAC
from headwater.methods.grad_cos import GradCos
from headwater.methods.grad_dot import GradDot
from headwater.methods.less import LESS
from headwater.methods.logra import LoGra
from headwater.methods.magic import MAGIC
from headwater.methods.source import SOURCE
from headwater.methods.tracin import TracInCP
from headwater.methods.trackstar import TrackStar
from headwater.methods.trak import TRAK
from headwater.training.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.tasks.query import Query
    from headwater.tasks.task import Task
    from headwater.training.run import TrainingRun

ALONG, STATE, START = "checkpoints", "optimizer state", "initial weights"


def every_linear(name: str, module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer; the head is one."""
    return isinstance(module, torch.nn.Linear)


@dataclass(frozen=True)
class Trained:
    """A training that methods are told of.

    Args:
        task: at its end. recipe: how it was trained. run: with checkpoints and Adam's states.
        initial: weights before it.
        seed: of the methods. magic: queries that MAGIC scores. held_out: queries of the same
            template, for TrackStar's task Hessian; None = it is not told of any.
    """

    task: Task
    recipe: Recipe
    run: TrainingRun
    initial: Mapping[str, Any]
    seed: int
    magic: int | None = None
    held_out: Sequence[Query] | None = None


def lm_methods(told: Trained) -> list[Candidate]:
    """The methods, best informed first."""
    run, seed = told.run, told.seed
    plain = Features(parameters=every_linear, storage="float32", seed=seed)
    margins = Features(parameters=every_linear, output="margin", storage="float32", seed=seed)
    moment = run.second_moment(told.task, every_linear)
    corrected = Features(
        parameters=every_linear, second_moment=moment, storage="float32", seed=seed
    )
    by_adam, stepped = (ALONG, STATE), (STATE,)
    if told.held_out is not None:
        stepped = (STATE, "held-out queries")

    def magic() -> MAGIC:
        return MAGIC(told.recipe, initial=dict(told.initial))

    def source() -> SOURCE:
        eps = told.recipe.eps
        return SOURCE(run, optimizer="adam", eps=eps, parameters=every_linear, seed=seed)

    def less() -> LESS:
        if told.recipe.eps == Recipe.eps:  # a trifle: as the authors' code has it
            return LESS(run, parameters=every_linear)
        return LESS(run, "outside", eps=told.recipe.eps, parameters=every_linear)

    def ekfac() -> EKFAC:
        return EKFAC(parameters=every_linear, seed=seed)

    def kfac() -> KFAC:
        return KFAC(parameters=every_linear, seed=seed)

    def datainf() -> DataInf:
        return DataInf(examples=None, parameters=every_linear, seed=seed)

    def trackstar() -> TrackStar:
        return TrackStar(told.held_out)

    return [
        Candidate("magic", "MAGIC", magic, ("recipe", START), queries=told.magic),
        Candidate("ekfac", "EK-FAC", ekfac),
        Candidate("kfac", "K-FAC", kfac),
        Candidate("source", "SOURCE", source, by_adam),
        Candidate("tracin", "TracInCP", lambda: TracInCP(run, parameters=every_linear), (ALONG,)),
        Candidate("less", "LESS", less, by_adam),
        Candidate("datainf", "DataInf", datainf),
        Candidate("trackstar", "TrackStar", trackstar, stepped, corrected),
        Candidate("logra", "LoGra", LoGra, features=plain),
        Candidate("trak", "TRAK", TRAK, features=margins),
        Candidate("graddot", "GradDot", GradDot, features=plain),
        Candidate("gradcos", "GradCos", GradCos, features=plain),
        Candidate("repsim", "RepSim", RepSim),
    ]


def lm_controls(seed: int) -> list[Candidate]:
    """Rows of every board of texts."""
    return [
        Candidate("bm25", "BM25", BM25),
        Candidate("dense", "Dense (MiniLM)", Dense),
        Candidate("loss", "Loss", OwnLoss),
        Candidate("random", "Random", lambda: Random(seed)),
    ]
