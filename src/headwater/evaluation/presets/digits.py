"""digits: a small net on 8 x 8 images, a tenth of whose training labels are wrong.

Half-subsets, several seeds each, say what leaving examples out really does; the wrong labels are
known, so self-influence can be put to the test. The training has the weight decay that its
objective's curvature is damped by, and ends where its learning rate has gone to zero: what
influence functions assume is nearly so here. A method that fails on this board fails at home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.corpus import Corpus
from headwater.evaluation.bank import Bank
from headwater.evaluation.board import Finding, Setting
from headwater.evaluation.brittleness import Brittleness
from headwater.evaluation.candidates import Candidate
from headwater.evaluation.detection import DetectionMetric
from headwater.evaluation.exact import GaussNewton
from headwater.evaluation.lds import LDSMetric
from headwater.evaluation.own_loss import OwnLoss
from headwater.evaluation.presets import common as c
from headwater.evaluation.presets.wrong_digits import (
    CLASSES,
    Data,
    data,
    logits,
    loss,
    margin,
    net,
    sample,
)
from headwater.evaluation.removal import Removal
from headwater.evaluation.subsets import left_out
from headwater.evaluation.trainers import LoopTrainer
from headwater.evidence.random_scores import Random
from headwater.gradients.features import Features
from headwater.methods.arnoldi import Arnoldi
from headwater.methods.datainf import DataInf
from headwater.methods.ekfac import EKFAC, KFAC
from headwater.methods.grad_cos import GradCos
from headwater.methods.grad_dot import GradDot
from headwater.methods.logra import LoGra
from headwater.methods.magic import MAGIC
from headwater.methods.self_influence_run import self_influence_of_run
from headwater.methods.source import SOURCE
from headwater.methods.tracin import TracInCP
from headwater.methods.trackstar import TrackStar
from headwater.methods.trak import TRAK
from headwater.tasks.query import Query
from headwater.tasks.task import Task
from headwater.training.recipe import Recipe

if TYPE_CHECKING:
    from headwater.evaluation.metric import Figures, Metric, Scored
    from headwater.evaluation.presets.common import Array, Asked
    from headwater.index.index import Index
    from headwater.training.run import TrainingRun


@dataclass(frozen=True)
class Sizes:
    """What the scale decides."""

    rows: int = 1797
    held_out: int = 360
    queries: int = 100
    magic: int = 16  # queries of those
    hidden: int = 32
    subsets: int = 64
    seeds: int = 4
    removal: int = 4  # queries of those
    ks: tuple[int, ...] = (50,)
    flips: int = 6  # queries of those
    until: tuple[int, ...] = (50, 100, 200)


FULL = Sizes()
TINY = Sizes(240, 40, 6, 2, 4, 10, 2, 2, (3,), 2, (3, 20))
RECIPE = Recipe(
    epochs=40,
    batch_size=64,
    learning_rate=0.1,
    schedule="linear",
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-3,
    grad_clip=None,
    dropout=False,
    checkpoints=6,
)


def setting(asked: Asked) -> Setting:
    """The setting; trains the net, or takes it from the cache."""
    sizes = TINY if asked.tiny else FULL
    recipe = replace(RECIPE, seed=asked.seed, epochs=8 if asked.tiny else RECIPE.epochs)
    rows = data(sizes.rows, sizes.held_out, asked.seed)
    corpus = Corpus.from_columns(
        {"x": rows.x, "y": rows.y}, ids=[f"digit-{i}" for i in range(len(rows.x))]
    )
    queries = [
        Query(columns={"x": x, "y": y}, name=f"held-out-{i}")
        for i, (x, y) in enumerate(zip(rows.held_x, rows.held_y, strict=True))
    ][: sizes.queries]
    task = Task(net(sizes.hidden, asked.seed), loss, margin=margin, sample=sample)
    initial = c.initial_state(task)
    run, seconds = c.trained_once(task, corpus, recipe, asked.cache)
    trainer = LoopTrainer(
        task,
        corpus,
        recipe,
        queries,
        lambda seed: net(sizes.hidden, seed).state_dict(),
        ("loss", "margin"),
    )
    bank = Bank(asked.cache / "bank", trainer, asked.workers)
    metrics = _metrics(asked, sizes, bank, rows.flipped)
    methods = _methods(asked.seed, sizes, recipe, run, initial)
    chosen = asked.chosen_metrics(metrics)
    headline = next(iter(chosen[0].columns))
    return Setting(
        "digits",
        _told(asked, sizes, recipe, rows),
        asked.cache,
        task,
        corpus,
        queries,
        asked.chosen_methods(methods, _controls(asked.seed)),
        chosen,
        {"recipe": recipe.to_json()},
        seconds,
        headline,
        partial(_findings, chosen),
        (_accuracy(task, rows),),
    )


def _metrics(asked: Asked, sizes: Sizes, bank: Bank, flipped: Array) -> list[Metric]:
    halves = left_out(len(flipped), sizes.subsets, 0.5, asked.seed)
    seeds = range(asked.seed, asked.seed + sizes.seeds)
    return [
        LDSMetric(bank, halves, seeds, seed=asked.seed),
        DetectionMetric(flipped, seed=asked.seed),
        c.Part(Removal(bank, seeds[:2], sizes.ks, seed=asked.seed), sizes.removal, label="without"),
        c.Part(
            Brittleness(bank, seeds[:2], sizes.until, seed=asked.seed),
            sizes.flips,
            ["flips at", f"flipped by {sizes.until[-1]}"],
        ),
    ]


def _methods(
    seed: int,
    sizes: Sizes,
    recipe: Recipe,
    run: TrainingRun,
    initial: Mapping[str, Any],
) -> list[Candidate]:
    damping = recipe.weight_decay  # which is part of the objective's own curvature
    projected, margins = (
        Features(storage="float32", seed=seed),
        Features(output="margin", storage="float32", seed=seed),
    )
    along = ("checkpoints",)
    momentum = recipe.momentum

    def tracin_own(index: Index) -> Array:
        full = Features(projection=None, storage="float32")
        return self_influence_of_run(index, run.checkpoints, features=full).values

    def magic() -> MAGIC:
        return MAGIC(recipe, initial=dict(initial))

    return [
        Candidate("magic", "MAGIC", magic, ("recipe", "initial weights"), queries=sizes.magic),
        Candidate("gauss-newton", "Gauss-Newton, exact", lambda: GaussNewton(logits, damping)),
        Candidate("ekfac", "EK-FAC", lambda: EKFAC(damping=damping, seed=seed)),
        Candidate("kfac", "K-FAC", lambda: KFAC(damping=damping, seed=seed)),
        Candidate("source", "SOURCE", lambda: SOURCE(run, momentum=momentum, seed=seed), along),
        Candidate("tracin", "TracInCP", lambda: TracInCP(run), along, own=tracin_own),
        Candidate("datainf", "DataInf", lambda: DataInf(examples=None, seed=seed)),
        Candidate("arnoldi", "Arnoldi", lambda: Arnoldi(seed=seed)),
        Candidate("logra", "LoGra", LoGra, features=projected),
        Candidate("trak", "TRAK", TRAK, features=margins),
        Candidate("trackstar", "TrackStar", TrackStar, features=projected),
        Candidate("graddot", "GradDot", GradDot, features=projected),
        Candidate("gradcos", "GradCos", GradCos, features=projected),
    ]


def _controls(seed: int) -> list[Candidate]:
    def drawn(index: Index) -> Array:
        return np.random.Generator(np.random.PCG64(seed)).random(len(index))

    return [
        Candidate("loss", "Loss", OwnLoss),
        Candidate("random", "Random", lambda: Random(seed), own=drawn),
    ]


def _told(asked: Asked, sizes: Sizes, recipe: Recipe, rows: Data) -> dict[str, Any]:
    """The recipe of the whole board."""
    return {
        "preset": "digits",
        "scale": asked.scale,
        "seed": asked.seed,
        "data": f"scikit-learn digits, {len(rows.x)} rows to train on, pixels / 16",
        "flipped labels": int(rows.flipped.sum()),
        "model": f"64-{sizes.hidden}-{CLASSES}, ReLU; other initial weights for every seed",
        "training": recipe.to_json(),
        "queries": f"{sizes.queries} rows held out, their right labels; MAGIC the first "
        f"{sizes.magic}",
        "subsets": f"{sizes.subsets} halves x {sizes.seeds} seeds",
        "leave-top-k-out": f"k {sizes.ks}, the first {sizes.removal} queries, 2 seeds, 4 draws",
        "brittleness": f"k {sizes.until}, the first {sizes.flips} queries, 2 seeds",
        "damping": "the weight decay, for Gauss-Newton, EK-FAC and K-FAC; else the method's own",
        "projection": "16 x 16 a layer, float32, for the views",
    }


def _accuracy(task: Task, rows: Data) -> str:
    import torch

    with torch.no_grad():
        held = task.model(torch.as_tensor(rows.held_x)).argmax(dim=1).numpy()
        own = task.model(torch.as_tensor(rows.x)).argmax(dim=1).numpy()
    wrong = float((own == rows.y)[rows.flipped].mean())
    return (
        f"The net is right on {float((held == rows.held_y).mean()):.1%} of the rows held out, and "
        f"has learnt {wrong:.0%} of the wrong labels."
    )


def _findings(
    chosen: Sequence[Metric],
    scored: Mapping[str, Scored],
    figures: Mapping[str, Figures],
) -> list[Finding]:
    """What is claimed of this board."""
    made: list[Finding] = []
    lds = next((one for one in chosen if isinstance(one, LDSMetric)), None)
    if lds is not None:
        made.append(c.at_least(figures, "ekfac", "EK-FAC", "LDS / ceiling", 0.75))
        made.append(_twice(figures))
        made.append(c.order(lds, scored, [("gauss-newton", ">"), ("ekfac", "")]))
        made.append(c.contains_zero(figures, "LDS"))
    if any(metric.name == "detection" for metric in chosen):
        made.append(c.at_least(figures, "ekfac", "EK-FAC's self-influence", "found in 20%", 0.9))
    return made


def _twice(figures: Mapping[str, Figures]) -> Finding:
    claim = "LDS of EK-FAC is at least twice that of GradDot"
    one, other = c.figure(figures, "ekfac", "LDS"), c.figure(figures, "graddot", "LDS")
    if one is None or other is None:
        return Finding(claim, None, "no figure")
    return Finding(claim, one.value >= 2 * other.value, f"{c.shown(one)} and {c.shown(other)}")
