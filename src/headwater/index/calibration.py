"""Calibration, once and frozen: what later shards need to be made alike, from a small sample.

The sample is chosen by a hash of the ids, so that it does not depend on order or sharding. From it
come the second moment (where it is to be estimated), the basis in which features are stored, and
reference queries: continuations of training text, against which an example's scores are judged.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headwater.engine.errors import DamageError, NumericError
from headwater.engine.files import checksum, write_atomic
from headwater.engine.progress import Progress
from headwater.gradients.features import TopEigenvectors, stored_rank
from headwater.gradients.second_moment import SecondMoment
from headwater.index.corpus_shards import chunks_of, read_shard
from headwater.index.encoding import Basis
from headwater.index.manifest import corpus_folder
from headwater.index.mapped import map_tensors
from headwater.index.top_eigenvectors import Top, top_eigenvectors
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.gradients.compute import Bases, Gradients
    from headwater.gradients.layout import Block

logger = logging.getLogger(__name__)

MOST, LEAST, SHARE = 1024, 64, 20  # sample: a twentieth of the documents, within these bounds
REFERENCES = 16
PREFIX, TARGET = 48, 4  # tokens of a reference query's context and of its target


@dataclass
class Calibration:
    """What is frozen: basis, reference features float32 [references, size], second moment.

    `top` is the projection onto eigenvectors, where that was chosen.
    """

    basis: Basis
    references: np.ndarray[Any, Any]
    moment: SecondMoment | None
    top: Top = field(default_factory=lambda: Top({}, {}, {}))

    @property
    def bases(self) -> Bases:
        """P and Q by parameter name; empty where they are random."""
        return self.top.bases


def sample_size(documents: int) -> int:
    """Documents in the calibration sample of a corpus of this many."""
    return min(documents, MOST, max(LEAST, documents // SHARE))


def choose_sample(folder: Path, shards: list[dict[str, Any]], seed: int) -> list[tuple[str, int]]:
    """(shard name, row) of the documents of smallest sha256(seed, id), smallest first."""
    total = sum(shard["documents"] for shard in shards)

    def keyed() -> Any:
        for number, shard in enumerate(shards):
            rows = read_shard(folder / f"{shard['name']}.parquet", ["id"])
            for row, value in enumerate(rows):
                key = hashlib.sha256(f"{seed}|{value['id']}".encode()).digest()
                yield key, number, row

    smallest = heapq.nsmallest(sample_size(total), keyed())
    return [(shards[number]["name"], row) for _, number, row in smallest]


def calibrate(
    gradients: Gradients,
    folder: Path,
    shards: list[dict[str, Any]],
    budget: int,
    *,
    references: bool = True,
) -> Calibration:
    """Measure the sample; sets the estimated second moment on `gradients` when one is asked for.

    `gradients.budget_used` tells the budget that memory allowed. `references`: see `Plan`.

    Raises:
        NumericError: when no example of the sample has a finite gradient.
    """
    features = gradients.features
    chunks = _sampled(gradients, folder, shards)
    gradients.learn_sharing(chunks[0])
    gradients.budget_used = budget
    if features.second_moment == "estimate":
        gradients.set_moment(None)
        gradients.set_moment(_finite_moment(gradients, chunks, budget))
    top = Top({}, {}, {})
    if isinstance(features.projection, TopEigenvectors):
        gradients.set_bases({})
        questions = [reference_chunk(chunk) for chunk in chunks]
        top = top_eigenvectors(gradients, chunks, [q for q in questions if q is not None], budget)
        gradients.set_bases(top.bases)
    basis = Basis.identity(gradients.layout.blocks)
    if features.storage != "float32" and stored_rank(features.storage) is None:
        basis = Basis.half_whitened(gradients.layout.blocks, _measure(gradients, chunks, budget))
    asked = chunks if references else []
    kept = _reference_features(gradients, asked, gradients.budget_used)
    return Calibration(basis, kept, gradients.moment, top)


def _sampled(gradients: Gradients, folder: Path, shards: list[dict[str, Any]]) -> list[Chunk]:
    """One chunk of each sampled document: the sample stays as small as it was asked to be."""
    places = choose_sample(folder, shards, gradients.features.seed)
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for name in dict.fromkeys(name for name, _ in places):
        held = read_shard(folder / f"{name}.parquet")
        rows |= {(name, row): held[row] for other, row in places if other == name}
    return [held[0] for held in chunks_of(gradients.task, [rows[place] for place in places])]


def _finite_moment(gradients: Gradients, chunks: list[Chunk], budget: int) -> SecondMoment:
    """The estimated second moment, without the examples that have no finite gradient."""
    moment = gradients.estimate_moment(chunks, budget)
    if all(np.isfinite(factor).all() for pair in moment.factors.values() for factor in pair):
        return moment
    finite = torch.zeros(len(chunks), dtype=torch.bool)
    for part, made in gradients.stream(chunks, budget):
        finite[part] = torch.isfinite(made.u).all(dim=1).cpu()
    kept = [chunk for chunk, good in zip(chunks, finite.tolist(), strict=True) if good]
    if not kept:
        raise _none_finite(len(chunks))
    return gradients.estimate_moment(kept, budget)


def _measure(gradients: Gradients, chunks: list[Chunk], budget: int) -> torch.Tensor:
    made = torch.zeros((len(chunks), gradients.layout.size))
    with Progress("calibrating", len(chunks), "examples") as progress:
        for part, result in gradients.stream(chunks, budget):
            made[part] = result.u.float().cpu()
            progress.advance(len(part))
    finite = torch.isfinite(made).all(dim=1)
    if not bool(finite.any()):
        raise _none_finite(len(chunks))
    return made[finite]


def _none_finite(count: int) -> NumericError:
    return NumericError(
        "No example of the calibration sample has a finite gradient",
        found=f"{count} of {count} not finite",
        do="check the model's weights and its dtype",
    )


def _reference_features(
    gradients: Gradients, chunks: list[Chunk], budget: int
) -> np.ndarray[Any, Any]:
    """Features of continuations of sampled examples, as if they were queries."""
    references = [reference_chunk(chunk) for chunk in chunks[: REFERENCES * 4]]
    usable = [chunk for chunk in references if chunk is not None][:REFERENCES]
    if not usable:
        return np.zeros((0, gradients.layout.size), dtype=np.float32)
    made = np.zeros((len(usable), gradients.layout.size), dtype=np.float32)
    for part, result in gradients.stream(usable, budget, "query"):
        made[part] = result.u.float().cpu().numpy()
    return made[np.isfinite(made).all(axis=1)]


def reference_chunk(chunk: Chunk) -> Chunk | None:
    """A query out of an example: its first tokens, with the last few of them as the target."""
    if "input_ids" not in chunk.content:
        return chunk
    length = min(chunk.length, PREFIX + TARGET)
    labels = chunk.content["labels"][:length].copy()
    labels[: max(1, length - TARGET)] = -100
    if not (labels >= 0).any():
        return None
    return Chunk({"input_ids": chunk.content["input_ids"][:length], "labels": labels}, 0, length)


def save_calibration(path: Path, calibration: Calibration) -> dict[str, Any]:
    """Write it; returns what the manifest says of it."""
    from safetensors.torch import save_file

    tensors = calibration.basis.tensors()
    tensors["references"] = torch.from_numpy(calibration.references)
    tensors |= calibration.top.tensors()
    moment = calibration.moment
    if moment is not None:
        for name, (row, column) in moment.factors.items():
            tensors[f"moment.row.{name}"] = torch.from_numpy(row)
            tensors[f"moment.column.{name}"] = torch.from_numpy(column)
        for name, full in moment.full.items():
            tensors[f"moment.full.{name}"] = torch.from_numpy(np.ascontiguousarray(full))
    write_atomic(path, lambda temporary: save_file(tensors, temporary))
    return {
        "checksum": checksum(path),
        "references": len(calibration.references),
        "second_moment": None if moment is None else moment.label,
        **({"eigenvectors": calibration.top.report} if calibration.top.report else {}),
    }


def restore_calibration(folder: Path, manifest: dict[str, Any], gradients: Gradients) -> None:
    """Make a damaged calibration again, from the same sample.

    Raises:
        DamageError: when it does not come out the same, since what is stored depends on it.
    """
    path = folder / "statistics" / "calibration.safetensors"
    wanted = manifest["calibration"]["checksum"]
    if path.exists() and checksum(path) == wanted:
        return
    logger.warning("%s is damaged and is made again", path)
    budget = manifest["calibration"]["budget"]
    place, shards = corpus_folder(folder), first_shards(manifest["corpus"])
    referred = manifest["calibration"]["references"] > 0
    made = calibrate(gradients, place, shards, budget, references=referred)
    again = path.with_name("calibration.again.safetensors")
    found = save_calibration(again, made)["checksum"]
    if found != wanted:
        again.unlink()
        raise DamageError(
            f"{path} is damaged and cannot be made the same again",
            expected=f"checksum {wanted[:12]}",
            found=found[:12],
            do="restore it, or build into a new folder",
        )
    again.replace(path)


def first_shards(corpus: dict[str, Any]) -> list[dict[str, Any]]:
    """Those a calibration is made of: examples that are appended have no part in it."""
    appended = corpus.get("appended", [])
    return corpus["shards"][: appended[0]["first"] if appended else None]


def load_calibration(path: Path, blocks: tuple[Block, ...], label: str | None) -> Calibration:
    """Read it back; `label` is the second moment's, from the manifest."""
    tensors = map_tensors(path)
    moment = None
    if label is not None:
        found = {part: _named(tensors, f"moment.{part}.") for part in ("row", "column", "full")}
        factors = {n: (row.numpy(), found["column"][n].numpy()) for n, row in found["row"].items()}
        moment = SecondMoment(label, factors, {n: v.numpy() for n, v in found["full"].items()})
    basis = Basis.from_tensors(blocks, tensors)
    return Calibration(basis, tensors["references"].numpy(), moment, Top.from_tensors(tensors))


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
