"""Building an index: ingest, calibrate, then shard by shard; each step can be lost and done again.

Workers take shards by number (worker w of n takes those with number % n == w), and each writes
under a lock that dies with its process, so a build may be stopped anywhere, by any means, and
started again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headwater.curvature.autocorrelation import (
    Autocorrelation,
    pooled_spectrum,
    widest_gathered,
)
from headwater.engine.errors import DamageError, InputError, MismatchError
from headwater.engine.files import checksum, locked, make_folder, read_json, sweep, write_atomic
from headwater.engine.progress import Progress
from headwater.gradients.compute import Gradients
from headwater.index.calibration import (
    calibrate,
    first_shards,
    load_calibration,
    restore_calibration,
    save_calibration,
)
from headwater.index.corpus_resume import load_or_ingest, recorded, require_corpus, settle
from headwater.index.corpus_shards import chunks_of, read_shard
from headwater.index.encoding import stored_bytes
from headwater.index.manifest import (
    FORMAT,
    NAME,
    Manifest,
    corpus_folder,
    read_manifest,
    require_same,
    write_manifest,
)
from headwater.index.mapped import map_tensors
from headwater.index.shard_job import (
    ShardJob,
    is_done,
    is_intact,
    mark_path,
    merged,
    sums_path,
)
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.gradients.features import Features
    from headwater.tasks.task import Task

logger = logging.getLogger(__name__)

CPU_BUDGET, GPU_BUDGET = 1024, 16384  # tokens of a batch
SHARD_BYTES = 64 << 20  # of features, so that a shard's buffer stays small


PLAIN_ROWS = 8192  # examples of a shard without features


@dataclass(frozen=True)
class Plan:
    """How a build is run; none of it changes what the features mean.

    Args:
        budget: tokens of a batch; None = 1,024 on a CPU, 16,384 on a GPU. Recorded, since the
            last bits of a feature depend on it.
        shard_rows: rows (chunks) of a shard; None = as many as 64 MB of features.
        worker: (number, count) of this process among the workers.
        skip_bad: leave out and list examples that cannot be used, instead of stopping.
        spectrum: keep the eigenvalues of R, all blocks pooled; without, they are worked out when
            they are asked for. references: keep reference queries, which shown examples are judged
            by.
    """

    budget: int | None = None
    shard_rows: int | None = None
    worker: tuple[int, int] = (0, 1)
    skip_bad: bool = False
    spectrum: bool = True
    references: bool = True


def build(
    folder: Path, task: Task | Texts, corpus: Corpus, features: Features | None, plan: Plan
) -> None:
    """Build or resume the index at `folder`; returns when this worker's shards are done.

    Without `features` it holds the examples only.

    Raises:
        MismatchError: when the folder holds an index of another task, corpus or features.
        BusyError: when another process builds the same shard.
    """
    number, count = plan.worker
    if not 0 <= number < count:
        raise InputError("There is no such worker", expected=f"0 to {count - 1}", found=number)
    make_folder(folder)
    if features is None or isinstance(task, Texts):
        if features is not None:
            raise InputError("Features need a model", expected="a Task", found="texts alone")
        with locked(folder / ".setup.lock", f"The index at {folder}", wait=count > 1):
            _set_up_plain(folder, task, corpus, plan)
        return
    gradients = Gradients(task, features)
    with locked(folder / ".setup.lock", f"The index at {folder}", wait=count > 1):
        manifest = _set_up(folder, gradients, corpus, plan)
    build_shards(folder, manifest, gradients, plan)
    finish(folder, spectrum=plan.spectrum)


def _set_up(folder: Path, gradients: Gradients, corpus: Corpus, plan: Plan) -> Manifest:
    """The manifest with its calibration, made or taken over from an earlier start."""
    task = gradients.task
    place = corpus_folder(folder)
    if (folder / NAME).exists():
        manifest = settle(folder)
        require_features(manifest, gradients)
        require_corpus(place, manifest, task, corpus)
        restore(folder, manifest, gradients)
        return manifest
    _require_new(folder)
    rows = plan.shard_rows or rows_of_shard(gradients)
    summary = load_or_ingest(place, task, corpus, rows, plan.skip_bad)
    manifest = begin(folder, gradients, recorded(summary), rows, plan)
    write_manifest(folder, manifest)
    return manifest


def begin(
    folder: Path, gradients: Gradients, corpus: dict[str, Any], rows: int, plan: Plan
) -> Manifest:
    """Calibrate; the manifest of an index, or feature set, that has no shard yet."""
    task = gradients.task
    default = GPU_BUDGET if task.device.type == "cuda" else CPU_BUDGET
    budget = plan.budget or default
    place, shards = corpus_folder(folder), first_shards(corpus)
    calibration = calibrate(gradients, place, shards, budget, references=plan.references)
    path = folder / "statistics" / "calibration.safetensors"
    return {
        "format": FORMAT,
        "task": task.describe(),
        "source": getattr(task, "source", {}),
        "features": gradients.features.describe(),
        "parameters": sorted(gradients.parameters),
        "layout": gradients.layout.describe(),
        "coverage": gradients.coverage,
        "corpus": corpus,
        "calibration": save_calibration(path, calibration) | {"budget": gradients.budget_used},
        "budget": budget,
        "shard_rows": rows,
        "shards": [],
        "complete": False,
    }


def require_features(manifest: Manifest, gradients: Gradients) -> None:
    """Raise MismatchError unless these are the features that were begun."""
    require_same(manifest["task"], gradients.task.describe(), "task")
    require_same(manifest["features"], gradients.features.describe(), "features")
    _require_parameters(manifest, gradients)


def restore(folder: Path, manifest: Manifest, gradients: Gradients) -> None:
    """Mend what is damaged of the calibration and the statistics."""
    restore_calibration(folder, manifest, gradients)
    _check_total(folder, manifest)


def _require_new(folder: Path) -> None:
    for place in (folder, folder / "corpus", folder / "statistics"):
        sweep(place)
    if any(path.name not in (".setup.lock", "corpus", "statistics") for path in folder.iterdir()):
        raise InputError(
            f"{folder} is neither empty nor an index", do="name an empty or a new folder"
        )


def _set_up_plain(folder: Path, task: Task | Texts, corpus: Corpus, plan: Plan) -> None:
    """An index without features is finished with its corpus."""
    place = folder / "corpus"
    if (folder / NAME).exists():
        manifest = settle(folder)
        require_same(manifest["task"], task.describe(), "task")
        require_same(manifest["features"], {}, "features")
        require_corpus(place, manifest, task, corpus)
    else:
        _require_new(folder)
        rows = plan.shard_rows or PLAIN_ROWS
        summary = load_or_ingest(place, task, corpus, rows, plan.skip_bad)
        manifest: Manifest = {
            "format": FORMAT,
            "task": task.describe(),
            "source": getattr(task, "source", {}),
            "features": {},
            "parameters": [],
            "layout": [],
            "coverage": {},
            "corpus": recorded(summary),
            "calibration": {},
            "budget": 0,
            "shard_rows": rows,
            "shards": [],
        }
    write_manifest(folder, manifest | {"complete": True})


def rows_of_shard(gradients: Gradients) -> int:
    """Rows of a shard when nothing is asked: about 64 MB of features."""
    width = stored_bytes(gradients.layout.blocks, gradients.features.storage)
    return max(64, min(8192, SHARD_BYTES // width))


def _require_parameters(manifest: Manifest, gradients: Gradients) -> None:
    """A filter of modules cannot be recorded; what it chose can."""
    held, asked = set(manifest["parameters"]), set(gradients.parameters)
    if held != asked:
        different = sorted(held ^ asked)
        raise MismatchError(
            "The attributed parameters differ from the index's",
            expected=f"{'with' if different[0] in held else 'without'} {different[0]}",
            found=f"{len(different)} others in all",
            do="give what the index was built with, or build into another folder",
        )


def _check_total(folder: Path, manifest: Manifest) -> None:
    """Remove a damaged total of the statistics, and with it the marks of all that was in it."""
    path = folder / "statistics" / "autocorrelation.safetensors"
    if not (path.exists() or manifest["complete"]):
        return
    try:
        whole = merged(folder) > 0
    except (DamageError, KeyError):
        whole = False
    if manifest["complete"]:
        whole = whole and checksum(path) == manifest["statistics"]["checksum"]
    if not whole:
        logger.warning("%s is damaged: every shard is built again, for its share of it", path)
        path.unlink(missing_ok=True)


def build_shards(folder: Path, manifest: Manifest, gradients: Gradients, plan: Plan) -> None:
    """Build the shards that are this worker's and do not count yet, or are damaged."""
    number, count = plan.worker
    shards = manifest["corpus"]["shards"]
    before = merged(folder)
    mine = [shard for i, shard in enumerate(shards) if i % count == number]
    mine = [shard for shard in mine if not is_intact(folder, shard["name"], before)]
    if not mine:
        return
    blocks = gradients.layout.blocks
    label = manifest["calibration"]["second_moment"]
    path = folder / "statistics" / "calibration.safetensors"
    calibration = load_calibration(path, blocks, label)
    gradients.set_moment(calibration.moment)
    gradients.set_bases(calibration.bases)
    _warm_up(folder, gradients, shards[0])
    tokens = sum(shard["tokens"] for shard in mine)
    with Progress("indexing", tokens, "tokens") as progress:
        for name in (shard["name"] for shard in mine):
            with locked(folder / "done" / f".{name}.lock", f"Shard {name}"):
                if not is_done(folder, name, merged(folder)):
                    job = ShardJob(folder, name, gradients, calibration, manifest["budget"])
                    job.run(progress, plan.skip_bad)


def _warm_up(folder: Path, gradients: Gradients, shard: dict[str, Any]) -> None:
    """Learn which layers share inputs on the corpus's first chunk, whatever shard comes first."""
    rows = read_shard(corpus_folder(folder) / f"{shard['name']}.parquet")[:1]
    gradients.learn_sharing(chunks_of(gradients.task, rows)[0][0])


def finish(folder: Path, *, spectrum: bool = True) -> bool:
    """When every shard is done: merge statistics in shard order, complete the manifest.

    `spectrum`: see `Plan`.

    Returns:
        Whether the index is complete now.
    """
    with locked(folder / ".setup.lock", f"The index at {folder}", wait=True):
        manifest = read_manifest(folder)
        if not manifest["features"]:
            write_manifest(folder, manifest | {"complete": True})
            return True
        before = merged(folder)
        names: list[str] = [shard["name"] for shard in manifest["corpus"]["shards"]]
        if not all(is_done(folder, name, before) for name in names):
            return False
        shards = [{"name": name, **read_json(mark_path(folder, name))} for name in names]
        if not (manifest["complete"] and manifest["shards"] == shards and before == len(names)):
            manifest["statistics"] = _merge(folder, manifest, names, spectrum)
            manifest["shards"], manifest["complete"] = shards, True
            write_manifest(folder, manifest)
        for place in (".", "corpus", "statistics", "features", "done"):
            sweep(folder / place)  # every shard is done: nobody writes here now
        for name in names:
            sums_path(folder, name).unlink(missing_ok=True)
            (folder / "done" / f".{name}.lock").unlink(missing_ok=True)
        return True


def _merge(folder: Path, manifest: Manifest, names: list[str], spectrum: bool) -> dict[str, Any]:
    """Add the shards that are not yet in the total, in order; float64, so order alone decides."""
    from safetensors.torch import save_file

    from headwater.index.layouts import layout_from

    blocks = layout_from(manifest["layout"])
    path = folder / "statistics" / "autocorrelation.safetensors"
    before = merged(folder)
    total = Autocorrelation(blocks, widest_gathered(manifest["features"]["storage"]))
    if before:
        total = Autocorrelation.from_tensors(
            blocks, {k: v.clone() for k, v in map_tensors(path).items()}
        )
    for name in names[before:]:
        total.merge(Autocorrelation.from_tensors(blocks, _sums(folder, name)))
    tensors = total.tensors() | {"shards": torch.tensor([len(names)])}
    means = total.means()
    if spectrum and any(mean is not None for mean in means):
        tensors["spectrum"] = torch.from_numpy(pooled_spectrum(means))
    write_atomic(path, lambda temporary: save_file(tensors, temporary))
    return {"checksum": checksum(path), "count": total.count}


def _sums(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = sums_path(folder, name)
    try:
        return map_tensors(path)
    except DamageError:
        path.unlink()  # without them the shard does not count, and is built again
        raise
