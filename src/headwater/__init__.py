"""Headwater: the training examples behind what a model says. This file holds the public names only.

Names load when they are first used, so that `import headwater` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.answer.answer import Answer as Answer
    from headwater.answer.ask import ask as ask
    from headwater.corpus import Corpus as Corpus
    from headwater.curvature.damping import RelativeDamping as RelativeDamping
    from headwater.curvature.damping import ScheduleDamping as ScheduleDamping
    from headwater.evaluation.verification import Verification as Verification
    from headwater.evaluation.verify import verify as verify
    from headwater.evidence.demonstrations import Demonstration as Demonstration
    from headwater.evidence.demonstrations import demonstrations as demonstrations
    from headwater.evidence.fusion import Fusion as Fusion
    from headwater.evidence.infini_gram import InfiniGram as InfiniGram
    from headwater.evidence.lexical import BM25 as BM25
    from headwater.evidence.lexical_tantivy import Tantivy as Tantivy
    from headwater.evidence.random_scores import Random as Random
    from headwater.evidence.repsim import RepSim as RepSim
    from headwater.evidence.semantic import Dense as Dense
    from headwater.evidence.spans import trace as trace
    from headwater.evidence.two_stage import TwoStage as TwoStage
    from headwater.evidence.verbatim import Verbatim as Verbatim
    from headwater.gradients.features import Features as Features
    from headwater.gradients.features import LayerBlocks as LayerBlocks
    from headwater.gradients.features import TopEigenvectors as TopEigenvectors
    from headwater.gradients.features import TwoSided as TwoSided
    from headwater.gradients.second_moment import SecondMoment as SecondMoment
    from headwater.index.build import Plan as Plan
    from headwater.index.estimate import Estimate as Estimate
    from headwater.index.estimate import estimate as estimate
    from headwater.index.feature_sets import add_features as add_features
    from headwater.index.index import Index as Index
    from headwater.methods.arnoldi import Arnoldi as Arnoldi
    from headwater.methods.datainf import DataInf as DataInf
    from headwater.methods.dda import CEA as CEA
    from headwater.methods.dda import DDA as DDA
    from headwater.methods.difficulty import DifficultyResult as DifficultyResult
    from headwater.methods.difficulty import difficulty as difficulty
    from headwater.methods.ekfac import EKFAC as EKFAC
    from headwater.methods.ekfac import KFAC as KFAC
    from headwater.methods.ensemble import Ensemble as Ensemble
    from headwater.methods.grad_cos import GradCos as GradCos
    from headwater.methods.grad_dot import GradDot as GradDot
    from headwater.methods.less import LESS as LESS
    from headwater.methods.logra import LoGra as LoGra
    from headwater.methods.lorif import LoRIF as LoRIF
    from headwater.methods.magic import MAGIC as MAGIC
    from headwater.methods.mirrored import Mirrored as Mirrored
    from headwater.methods.projected_ekfac import ProjectedEKFAC as ProjectedEKFAC
    from headwater.methods.relatif import LRelatIF as LRelatIF
    from headwater.methods.scoring import rank as rank
    from headwater.methods.scoring import scores as scores
    from headwater.methods.scoring import self_influence as self_influence
    from headwater.methods.scoring import top as top
    from headwater.methods.source import SOURCE as SOURCE
    from headwater.methods.source import Segment as Segment
    from headwater.methods.tracin import TracInCP as TracInCP
    from headwater.methods.trackstar import TrackStar as TrackStar
    from headwater.methods.trak import TRAK as TRAK
    from headwater.tasks.causal_lm import CausalLM as CausalLM
    from headwater.tasks.packing import pack as pack
    from headwater.tasks.query import Query as Query
    from headwater.tasks.task import Task as Task
    from headwater.training.checkpoint_features import add_checkpoints as add_checkpoints
    from headwater.training.run import TrainingRun as TrainingRun
    from headwater.training.second_moment import load_second_moment as load_second_moment

__version__ = "0.1.0"

_WHERE = {
    "Answer": "answer.answer",
    "ask": "answer.ask",
    "Corpus": "corpus",
    "BM25": "evidence.lexical",
    "Tantivy": "evidence.lexical_tantivy",
    "Dense": "evidence.semantic",
    "Fusion": "evidence.fusion",
    "InfiniGram": "evidence.infini_gram",
    "Random": "evidence.random_scores",
    "RepSim": "evidence.repsim",
    "TwoStage": "evidence.two_stage",
    "trace": "evidence.spans",
    "Verbatim": "evidence.verbatim",
    "Features": "gradients.features",
    "LayerBlocks": "gradients.features",
    "TwoSided": "gradients.features",
    "Plan": "index.build",
    "Estimate": "index.estimate",
    "estimate": "index.estimate",
    "Index": "index.index",
    "GradCos": "methods.grad_cos",
    "GradDot": "methods.grad_dot",
    "LoGra": "methods.logra",
    "LRelatIF": "methods.relatif",
    "RelativeDamping": "curvature.damping",
    "ScheduleDamping": "curvature.damping",
    "EKFAC": "methods.ekfac",
    "KFAC": "methods.ekfac",
    "TracInCP": "methods.tracin",
    "SOURCE": "methods.source",
    "Segment": "methods.source",
    "DataInf": "methods.datainf",
    "Arnoldi": "methods.arnoldi",
    "Demonstration": "evidence.demonstrations",
    "demonstrations": "evidence.demonstrations",
    "DifficultyResult": "methods.difficulty",
    "difficulty": "methods.difficulty",
    "CEA": "methods.dda",
    "DDA": "methods.dda",
    "Mirrored": "methods.mirrored",
    "MAGIC": "methods.magic",
    "Ensemble": "methods.ensemble",
    "add_checkpoints": "training.checkpoint_features",
    "add_features": "index.feature_sets",
    "TopEigenvectors": "gradients.features",
    "ProjectedEKFAC": "methods.projected_ekfac",
    "LESS": "methods.less",
    "LoRIF": "methods.lorif",
    "verify": "evaluation.verify",
    "Verification": "evaluation.verification",
    "rank": "methods.scoring",
    "scores": "methods.scoring",
    "self_influence": "methods.scoring",
    "top": "methods.scoring",
    "TrackStar": "methods.trackstar",
    "TRAK": "methods.trak",
    "CausalLM": "tasks.causal_lm",
    "pack": "tasks.packing",
    "Query": "tasks.query",
    "SecondMoment": "gradients.second_moment",
    "TrainingRun": "training.run",
    "load_second_moment": "training.second_moment",
    "Task": "tasks.task",
}

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'headwater' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"headwater.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
