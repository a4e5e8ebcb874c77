"""One shard from corpus rows to features, statistics and mark; and what makes it count.

The mark is written last. A shard counts when its mark is there, its features have the size the mark
says, and its statistics are in the total or wait to be added.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headwater.curvature.autocorrelation import FLUSH, Autocorrelation, widest_gathered
from headwater.engine.errors import DamageError, NumericError
from headwater.engine.files import checksum, read_json, sweep, write_atomic, write_json
from headwater.gradients.features import stored_rank
from headwater.index.corpus_shards import chunks_of, read_shard
from headwater.index.encoding import decode, encode
from headwater.index.manifest import corpus_folder
from headwater.index.mapped import map_tensors

if TYPE_CHECKING:
    from headwater.engine.progress import Progress
    from headwater.gradients.compute import Gradients, Projected
    from headwater.index.calibration import Calibration
    from headwater.tasks.task import Chunk

logger = logging.getLogger(__name__)


def features_path(folder: Path, name: str) -> Path:
    """Where the features of a shard are."""
    return folder / "features" / f"{name}.safetensors"


def sums_path(folder: Path, name: str) -> Path:
    """Where a shard's statistics wait to be added to the total."""
    return folder / "statistics" / f"shard-{name}.safetensors"


def mark_path(folder: Path, name: str) -> Path:
    """Where a shard's mark is."""
    return folder / "done" / f"{name}.json"


def merged(folder: Path) -> int:
    """How many shards, the first ones, are in the total: said by the total itself."""
    path = folder / "statistics" / "autocorrelation.safetensors"
    return int(map_tensors(path)["shards"][0]) if path.exists() else 0


def is_done(folder: Path, name: str, in_total: int) -> bool:
    """Whether the shard counts; `in_total` is `merged(folder)`."""
    path, mark = features_path(folder, name), mark_path(folder, name)
    if not (mark.exists() and path.exists()):
        return False
    if int(name) >= in_total and not sums_path(folder, name).exists():
        return False
    try:
        record = read_json(mark)
        return path.stat().st_size == record["bytes"]
    except (DamageError, KeyError, TypeError):
        return False


def is_intact(folder: Path, name: str, in_total: int) -> bool:
    """`is_done`, and the features are the bytes that were marked; says so when they are not."""
    if not is_done(folder, name, in_total):
        if mark_path(folder, name).exists():
            logger.warning("shard %s is damaged and is built again", name)
        return False
    mark = mark_path(folder, name)
    if checksum(features_path(folder, name)) == read_json(mark).get("checksum"):
        return True
    logger.warning("shard %s is damaged and is built again", name)
    mark.unlink(missing_ok=True)
    return False


class ShardJob:
    """One shard: computed, written, marked."""

    def __init__(
        self,
        folder: Path,
        name: str,
        gradients: Gradients,
        calibration: Calibration,
        budget: int,
    ) -> None:
        self.folder, self.name, self.gradients = folder, name, gradients
        self.calibration, self.budget = calibration, budget
        self.rows = read_shard(corpus_folder(folder) / f"{name}.parquet")
        held = chunks_of(gradients.task, self.rows)
        self.owners = [i for i, chunks in enumerate(held) for _ in chunks]
        self.chunks: list[Chunk] = [chunk for chunks in held for chunk in chunks]
        self.left_out: set[int] = set()  # documents whose loss or gradient is not finite

    def run(self, progress: Progress, skip_bad: bool) -> None:
        """Compute, write, mark.

        Raises:
            NumericError: when a loss or gradient is not finite, unless `skip_bad`.
        """
        for name in ("features", "done"):
            sweep(self.folder / name, f"{self.name}.*")
        sweep(self.folder / "statistics", f"shard-{self.name}.*")
        self._pass(progress, skip_bad)
        if any(self.owners.count(document) > 1 for document in self.left_out):
            self._pass(None, skip_bad)  # its other chunks were counted: again, without them
        self._write()

    def _pass(self, progress: Progress | None, skip_bad: bool) -> None:
        widest = widest_gathered(self.gradients.features.storage)
        self.statistics = Autocorrelation(self.gradients.layout.blocks, widest)
        self.out: dict[str, torch.Tensor] = {}
        self.loss = torch.zeros(len(self.chunks))
        self.weight: torch.Tensor | None = None
        self._buffer: list[torch.Tensor] = []
        self._buffered: list[int] = []
        for part, made in self.gradients.stream(self.chunks, self.budget):
            self._keep(part, made, skip_bad)
            if progress is not None:
                progress.advance(sum(self.chunks[i].length for i in part))
        self._flush()

    def _keep(self, part: Sequence[int], made: Projected, skip_bad: bool) -> None:
        """Put a batch into the buffer, with zeros for what is not finite or left out."""
        u, loss = made.u.float().cpu(), made.loss.float().cpu()
        weight = None if made.weight is None else made.weight.float().cpu()
        finite = torch.isfinite(u).all(dim=1) & torch.isfinite(loss)
        if weight is not None:
            finite &= torch.isfinite(weight)
        if not bool(finite.all()):
            bad = {
                self.owners[i] for i, good in zip(part, finite.tolist(), strict=True) if not good
            }
            self._refuse(bad, skip_bad)
        if self.left_out:
            out = torch.tensor([self.owners[i] in self.left_out for i in part])
            u[out], loss[out] = 0, 0
            if weight is not None:
                weight[out] = 0
        self.loss[list(part)] = loss
        if weight is not None:
            if self.weight is None:
                self.weight = torch.zeros(len(self.chunks))
            self.weight[list(part)] = weight
        self._buffer.append(u)
        self._buffered += part
        if len(self._buffered) >= FLUSH:
            self._flush()

    def _refuse(self, documents: set[int], skip_bad: bool) -> None:
        names = ", ".join(self.rows[i]["id"] for i in sorted(documents - self.left_out))
        if not skip_bad:
            raise NumericError(
                f"The loss or gradient of example {names} is not finite",
                do="mend or remove it, or go on without such examples with --skip-bad",
            )
        if names:
            logger.warning("skipped, not finite: %s", names)
        self.left_out |= documents

    def _flush(self) -> None:
        """Encode what is buffered into the shard's tensors, and add it to the statistics."""
        if not self._buffered:
            return
        u = torch.cat(self._buffer)
        blocks, storage = self.gradients.layout.blocks, self.gradients.features.storage
        basis = self.calibration.basis
        encoded = encode(blocks, basis, u, storage)
        counted = u
        if stored_rank(storage) is not None:
            # What truncation drops has no part in the scores, and so none in their curvature.
            counted = decode(blocks, basis, encoded["u"], encoded["scale"], storage)
        if self.left_out:
            kept = [self.owners[i] not in self.left_out for i in self._buffered]
            counted = counted[torch.tensor(kept)]
        self.statistics.add(counted)
        for name, value in encoded.items():
            if name not in self.out:
                self.out[name] = torch.zeros((len(self.chunks), value.shape[1]), dtype=value.dtype)
            self.out[name][self._buffered] = value
        self._buffer, self._buffered = [], []

    def _write(self) -> None:
        from safetensors.torch import save_file

        tensors = dict(self.out)
        tensors["document"] = torch.tensor(self.owners, dtype=torch.int32)
        tensors["offset"] = torch.tensor([c.offset for c in self.chunks], dtype=torch.int32)
        tensors["tokens"] = torch.tensor([c.length for c in self.chunks], dtype=torch.int32)
        tensors["loss"] = self.loss
        if self.weight is not None:
            tensors["weight"] = self.weight
        path = features_path(self.folder, self.name)
        write_atomic(path, lambda temporary: save_file(tensors, temporary))
        if int(self.name) >= merged(self.folder):  # else its sums are in the total already
            statistics = self.statistics.tensors()
            sums = sums_path(self.folder, self.name)
            write_atomic(sums, lambda temporary: save_file(statistics, temporary))
        mark = {
            "bytes": path.stat().st_size,
            "checksum": checksum(path),
            "rows": len(self.chunks),
            "budget": self.gradients.budget_used,
            "skipped": [self.rows[i]["id"] for i in sorted(self.left_out)],
        }
        write_json(mark_path(self.folder, self.name), mark)
