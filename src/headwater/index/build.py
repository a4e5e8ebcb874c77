"""Building an index: ingest, calibrate, then shard by shard; each step can be lost and done again.

A shard counts when its done mark exists, and that is written last. Workers take shards by number
(worker w of n takes those with number % n == w), and each writes under a lock that dies with its
process, so a build may be stopped anywhere, by any means, and started again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.autocorrelation import FLUSH, Autocorrelation, pooled_spectrum
from headwater.engine.errors import InputError, NumericError
from headwater.engine.files import checksum, locked, read_json, write_atomic, write_json
from headwater.engine.progress import Progress
from headwater.gradients.compute import Gradients
from headwater.index.calibration import calibrate, load_calibration, save_calibration
from headwater.index.corpus_shards import chunks_of, load_or_ingest, read_shard
from headwater.index.encoding import encode
from headwater.index.manifest import (
    FORMAT,
    NAME,
    Manifest,
    read_manifest,
    require_same,
    write_manifest,
)
from headwater.index.mapped import map_tensors

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features
    from headwater.index.calibration import Calibration
    from headwater.tasks.task import Chunk, Task

logger = logging.getLogger(__name__)

CPU_BUDGET, GPU_BUDGET = 1024, 16384  # tokens of a batch
SHARD_BYTES = 64 << 20  # of features, so that a shard's buffer stays small


@dataclass(frozen=True)
class Plan:
    """How a build is run; none of it changes what the features mean.

    Args:
        budget: tokens of a batch; None = 1,024 on a CPU, 16,384 on a GPU. Recorded, since the
            last bits of a feature depend on it.
        shard_rows: rows (chunks) of a shard; None = as many as 64 MB of features.
        worker: (number, count) of this process among the workers.
        skip_bad: leave out and list examples that cannot be used, instead of stopping.
    """

    budget: int | None = None
    shard_rows: int | None = None
    worker: tuple[int, int] = (0, 1)
    skip_bad: bool = False


def build(folder: Path, task: Task, corpus: Corpus, features: Features, plan: Plan) -> None:
    """Build or resume the index at `folder`; returns when this worker's shards are done.

    Raises:
        MismatchError: when the folder holds an index of another task, corpus or features.
        BusyError: when another process builds the same shard.
    """
    number, count = plan.worker
    if not 0 <= number < count:
        raise InputError("There is no such worker", expected=f"0 to {count - 1}", found=number)
    folder.mkdir(parents=True, exist_ok=True)
    gradients = Gradients(task, features)
    with locked(folder / ".setup.lock", f"The index at {folder}", wait=count > 1):
        manifest = _set_up(folder, gradients, corpus, plan)
    _build_shards(folder, manifest, gradients, plan)
    finish(folder)


def _set_up(folder: Path, gradients: Gradients, corpus: Corpus, plan: Plan) -> Manifest:
    """The manifest with its calibration, made or taken over from an earlier start."""
    task, features = gradients.task, gradients.features
    if (folder / NAME).exists():
        manifest = read_manifest(folder)
        require_same(manifest["task"], task.describe(), "task")
        require_same(manifest["features"], features.describe(), "features")
        load_or_ingest(folder / "corpus", task, corpus, manifest["shard_rows"], plan.skip_bad)
        return manifest
    if any(path.name not in (".setup.lock", "corpus", "statistics") for path in folder.iterdir()):
        raise InputError(
            f"{folder} is neither empty nor an index", do="name an empty or a new folder"
        )
    width = {"int8": 1, "float16": 2, "float32": 4}[features.storage]
    rows = plan.shard_rows or max(64, min(8192, SHARD_BYTES // (gradients.layout.size * width)))
    summary = load_or_ingest(folder / "corpus", task, corpus, rows, plan.skip_bad)
    default = GPU_BUDGET if task.device.type == "cuda" else CPU_BUDGET
    budget = plan.budget or default
    calibration = calibrate(gradients, folder / "corpus", summary["shards"], budget)
    path = folder / "statistics" / "calibration.safetensors"
    manifest: Manifest = {
        "format": FORMAT,
        "task": task.describe(),
        "source": getattr(task, "source", {}),
        "features": features.describe(),
        "parameters": sorted(gradients.parameters),
        "layout": gradients.layout.describe(),
        "coverage": gradients.coverage,
        "corpus": {k: v for k, v in summary.items() if k != "skipped"},
        "calibration": save_calibration(path, calibration),
        "budget": budget,
        "shard_rows": rows,
        "shards": [],
        "complete": False,
    }
    write_manifest(folder, manifest)
    return manifest


def _build_shards(folder: Path, manifest: Manifest, gradients: Gradients, plan: Plan) -> None:
    number, count = plan.worker
    shards = manifest["corpus"]["shards"]
    mine = [s for i, s in enumerate(shards) if i % count == number and not is_intact(folder, s)]
    if not mine:
        return
    blocks = gradients.layout.blocks
    label = manifest["calibration"]["second_moment"]
    path = folder / "statistics" / "calibration.safetensors"
    calibration = load_calibration(path, blocks, label)
    gradients.set_moment(calibration.moment)
    _warm_up(folder, gradients, shards[0])
    tokens = sum(shard["tokens"] for shard in mine)
    with Progress("indexing", tokens, "tokens") as progress:
        for shard in mine:
            with locked(folder / "done" / f".{shard['name']}.lock", f"Shard {shard['name']}"):
                if not is_done(folder, shard):
                    job = ShardJob(folder, shard, gradients, calibration, manifest["budget"])
                    job.run(progress, plan.skip_bad)


def _warm_up(folder: Path, gradients: Gradients, shard: dict[str, Any]) -> None:
    """Learn which layers share inputs on the corpus's first chunk, whatever shard comes first."""
    rows = read_shard(folder / "corpus" / f"{shard['name']}.parquet")[:1]
    gradients.learn_sharing(chunks_of(gradients.task, rows)[0][0])


def is_done(folder: Path, shard: dict[str, Any]) -> bool:
    """Whether the shard has its mark and its files have the sizes the mark says."""
    mark = folder / "done" / f"{shard['name']}.json"
    if not mark.exists():
        return False
    record = read_json(mark)
    path = folder / "features" / f"{shard['name']}.safetensors"
    return path.exists() and path.stat().st_size == record["bytes"]


def is_intact(folder: Path, shard: dict[str, Any]) -> bool:
    """`is_done`, and the features are the bytes that were marked; says so when they are not."""
    if not is_done(folder, shard):
        return False
    path = folder / "features" / f"{shard['name']}.safetensors"
    if checksum(path) == read_json(folder / "done" / f"{shard['name']}.json")["checksum"]:
        return True
    logger.warning("shard %s is damaged and is built again", shard["name"])
    (folder / "done" / f"{shard['name']}.json").unlink()
    return False


class ShardJob:
    """One shard from corpus rows to features, statistics and mark."""

    def __init__(
        self,
        folder: Path,
        shard: dict[str, Any],
        gradients: Gradients,
        calibration: Calibration,
        budget: int,
    ) -> None:
        self.folder, self.shard, self.gradients = folder, shard, gradients
        self.calibration, self.budget = calibration, budget
        self.blocks = gradients.layout.blocks
        self.statistics = Autocorrelation(self.blocks)
        self.skipped: list[str] = []
        self.out: dict[str, torch.Tensor] = {}
        self._buffer: list[torch.Tensor] = []
        self._buffered: list[int] = []

    def run(self, progress: Progress, skip_bad: bool) -> None:
        """Compute, write, mark."""
        name = self.shard["name"]
        rows = read_shard(self.folder / "corpus" / f"{name}.parquet")
        held = chunks_of(self.gradients.task, rows)
        owners = [i for i, chunks in enumerate(held) for _ in chunks]
        chunks = [chunk for chunks in held for chunk in chunks]
        self.loss = torch.zeros(len(chunks))
        self.weight: torch.Tensor | None = None
        for part, made in self.gradients.stream(chunks, self.budget):
            u = made.u.float().cpu()
            bad = ~(torch.isfinite(u).all(dim=1) & torch.isfinite(made.loss.cpu()))
            if bool(bad.any()):
                names = sorted({rows[owners[part[i]]]["id"] for i in bad.nonzero().flatten()})
                self._refuse(names, skip_bad)
                u[bad] = 0
            self._keep(part, u, made.loss, made.weight, len(chunks))
            progress.advance(sum(chunks[i].length for i in part))
        self._flush(len(chunks))
        self._write(name, owners, chunks)

    def _refuse(self, names: list[str], skip_bad: bool) -> None:
        if not skip_bad:
            raise NumericError(
                f"The loss or gradient of example {', '.join(names)} is not finite",
                do="mend or remove it, or go on without such examples with --skip-bad",
            )
        logger.warning("skipped, not finite: %s", ", ".join(names))
        self.skipped += names

    def _keep(
        self,
        part: Sequence[int],
        u: torch.Tensor,
        loss: torch.Tensor,
        weight: torch.Tensor | None,
        count: int,
    ) -> None:
        self.loss[list(part)] = loss.float().cpu()
        if weight is not None:
            if self.weight is None:
                self.weight = torch.zeros(count)
            self.weight[list(part)] = weight.float().cpu()
        self._buffer.append(u)
        self._buffered += part
        if len(self._buffered) >= FLUSH:
            self._flush(count)

    def _flush(self, count: int) -> None:
        """Encode what is buffered into the shard's tensors, and add it to the statistics."""
        if not self._buffered:
            return
        u = torch.cat(self._buffer)
        self.statistics.add(u)
        encoded = encode(
            self.blocks, self.calibration.basis, u, self.gradients.features.storage
        )
        for name, value in encoded.items():
            if name not in self.out:
                self.out[name] = torch.zeros((count, value.shape[1]), dtype=value.dtype)
            self.out[name][self._buffered] = value
        self._buffer, self._buffered = [], []

    def _write(self, name: str, owners: list[int], chunks: list[Chunk]) -> None:
        from safetensors.torch import save_file

        tensors = dict(self.out)
        tensors["document"] = torch.tensor(owners, dtype=torch.int32)
        tensors["offset"] = torch.tensor([c.offset for c in chunks], dtype=torch.int32)
        tensors["tokens"] = torch.tensor([c.length for c in chunks], dtype=torch.int32)
        tensors["loss"] = self.loss
        if self.weight is not None:
            tensors["weight"] = self.weight
        path = self.folder / "features" / f"{name}.safetensors"
        sums = self.folder / "statistics" / f"shard-{name}.safetensors"
        write_atomic(path, lambda temporary: save_file(tensors, temporary))
        if int(name) >= _merged(self.folder):  # a rebuilt shard's sums are in the total already
            statistics = self.statistics.tensors()
            write_atomic(sums, lambda temporary: save_file(statistics, temporary))
        mark = {
            "bytes": path.stat().st_size,
            "checksum": checksum(path),
            "rows": len(chunks),
            "budget": self.gradients.budget_used,
            "skipped": self.skipped,
        }
        write_json(self.folder / "done" / f"{name}.json", mark)


def _merged(folder: Path) -> int:
    """How many shards, the first ones, are in the total: said by the total itself."""
    path = folder / "statistics" / "autocorrelation.safetensors"
    return int(map_tensors(path)["shards"][0]) if path.exists() else 0


def finish(folder: Path) -> bool:
    """When every shard is done: merge statistics in shard order, complete the manifest.

    Returns:
        Whether the index is complete now.
    """
    with locked(folder / ".setup.lock", f"The index at {folder}", wait=True):
        manifest = read_manifest(folder)
        shards = manifest["corpus"]["shards"]
        if not all(is_done(folder, shard) for shard in shards):
            return False
        names = [shard["name"] for shard in shards]
        if manifest["complete"] and [s["name"] for s in manifest["shards"]] == names:
            return True
        manifest["statistics"] = _merge(folder, manifest, names)
        manifest["shards"] = [
            {"name": name, **read_json(folder / "done" / f"{name}.json")} for name in names
        ]
        manifest["complete"] = True
        write_manifest(folder, manifest)
        for name in names:
            (folder / "statistics" / f"shard-{name}.safetensors").unlink(missing_ok=True)
            (folder / "done" / f".{name}.lock").unlink(missing_ok=True)
        return True


def _merge(folder: Path, manifest: Manifest, names: list[str]) -> dict[str, Any]:
    """Add the shards that are not yet in the total, in order; float64, so order alone decides."""
    from safetensors.torch import save_file

    from headwater.index.layouts import layout_from

    blocks = layout_from(manifest["layout"])
    path = folder / "statistics" / "autocorrelation.safetensors"
    before = _merged(folder)
    total = Autocorrelation(blocks)
    if before:
        total = Autocorrelation.from_tensors(
            blocks, {k: v.clone() for k, v in map_tensors(path).items()}
        )
    for name in names[before:]:
        part = map_tensors(folder / "statistics" / f"shard-{name}.safetensors")
        total.merge(Autocorrelation.from_tensors(blocks, part))
    tensors = total.tensors() | {"shards": torch.tensor([len(names)])}
    means = total.means()
    if any(mean is not None for mean in means):
        tensors["spectrum"] = torch.from_numpy(pooled_spectrum(means))
    write_atomic(path, lambda temporary: save_file(tensors, temporary))
    return {"checksum": checksum(path), "count": total.count}
