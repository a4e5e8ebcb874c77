"""What an index will cost, before it is built: from a sample of the corpus and a few timed batches.

The sample is cut and run exactly as the build would do it. Documents beyond the sample are counted,
by the number of rows where files say it, by bytes in plain text files, else by reading on.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headwater.corpus.batches import batches_by_length
from headwater.curvature.autocorrelation import Autocorrelation, widest_gathered
from headwater.engine.errors import InputError
from headwater.engine.memory import PeakMemory
from headwater.engine.progress import Progress
from headwater.gradients.compute import Gradients
from headwater.gradients.features import stored_rank
from headwater.index.build import CPU_BUDGET, GPU_BUDGET, Plan, rows_of_shard
from headwater.index.calibration import REFERENCES, sample_size
from headwater.index.corpus_shards import write_parquet
from headwater.index.encoding import TURNED_LIMIT, Basis, encode

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.corpus.document import Document
    from headwater.gradients.features import Features
    from headwater.gradients.layout import Block
    from headwater.tasks.task import Chunk, Task
    from headwater.tasks.texts import Texts

SAMPLE = 2000  # documents that are cut into chunks
TIMED = 8  # batches that are timed, evenly spaced from the longest to the shortest
PATIENCE = 20.0  # seconds of timed batches
TIMED_WIDTH = 512  # of the eigendecomposition that is timed
TEXT, LINES = ".txt", (".jsonl", ".ndjson", ".jsonlines", ".json")
ROW_EXTRAS = 16  # bytes of a row's document, offset, length and loss


@dataclass(frozen=True)
class Estimate:
    """What a build takes.

    Args:
        documents, chunks, tokens: of the corpus; exact when `counted`.
        counted: whether the whole corpus was looked at. basis: how the numbers are known.
        skipped: documents of the sample that cannot be used.
        seconds: of the build, at `tokens_per_second`, calibration included.
        parts: the same seconds by stage: calibration, gradients, curvature.
        disk_bytes: of features, corpus and statistics.
        peak_memory_bytes: of the process (CPU) or of the device (CUDA).
        dimensions, blocks: of the feature vector.
        coverage: see `gradients.parameters.coverage`.
    """

    documents: int
    chunks: int
    tokens: int
    counted: bool
    basis: str
    skipped: int
    seconds: float
    parts: dict[str, float]
    tokens_per_second: float
    disk_bytes: dict[str, int]
    peak_memory_bytes: int
    dimensions: int
    blocks: int
    storage: str
    coverage: dict[str, Any]
    device: str
    dtype: str
    budget: int

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-serialisable."""
        return asdict(self)


def estimate(
    task: Task,
    corpus: Corpus,
    features: Features | None = None,
    plan: Plan | None = None,
) -> Estimate:
    """Time, disk and memory of an index, and the share of the parameters it covers.

    Args:
        task, corpus, features, plan: as for `Index.build`; nothing is written.

    Raises:
        InputError: when the corpus holds no example that can be used.
    """
    from headwater.gradients.features import Features

    features, plan = features or Features(), plan or Plan()
    gradients = Gradients(task, features)
    sample = take_sample(task, corpus, skip_bad=plan.skip_bad)
    documents, basis = count_documents(corpus, sample)
    factor = documents / max(sample.seen, 1)
    chunks = [chunk for held in sample.chunks for chunk in held]
    tokens = sum(chunk.length for chunk in chunks)
    budget = plan.budget or (GPU_BUDGET if task.device.type == "cuda" else CPU_BUDGET)
    timing = _measure(gradients, chunks, budget)
    rows = round(len(chunks) * factor)
    in_calibration = sample_size(documents) * tokens / max(len(sample.chunks), 1)
    passes = 2 if features.second_moment == "estimate" else 1
    parts = {
        "calibration": passes * in_calibration / timing.rate,
        "gradients": tokens * factor / timing.rate,
        "curvature": _factor_seconds(gradients.layout.blocks, features.storage),
    }
    shard = min(rows, plan.shard_rows or rows_of_shard(gradients))
    blocks = gradients.layout.blocks
    return Estimate(
        documents=round(len(sample.chunks) * factor),
        chunks=rows,
        tokens=round(tokens * factor),
        counted=sample.whole,
        basis=basis,
        skipped=sample.skipped,
        seconds=sum(parts.values()),
        parts=parts,
        tokens_per_second=timing.rate,
        disk_bytes={
            "features": round(rows * (timing.row_bytes + ROW_EXTRAS)),
            "corpus": round(stored_bytes(sample) * factor),
            "statistics": _statistics_bytes(task, blocks, features.storage),
        },
        peak_memory_bytes=timing.peak + round(shard * timing.row_bytes),
        dimensions=gradients.layout.size,
        blocks=len(blocks),
        storage=features.storage,
        coverage=gradients.coverage,
        device=str(task.device),
        dtype=str(next(task.model.parameters()).dtype).removeprefix("torch."),
        budget=budget,
    )


# -- the corpus ------------------------------------------------------------------------------


@dataclass
class Sample:
    """The first documents with their chunks; `seen` counts those that could not be used, too."""

    documents: list[Document]
    chunks: list[list[Chunk]]
    seen: int
    skipped: int
    whole: bool


def take_sample(task: Task | Texts, corpus: Corpus, *, skip_bad: bool) -> Sample:
    """The first documents of a corpus; raises InputError when none can be used."""
    sample = Sample([], [], 0, 0, True)
    for document in corpus.documents():
        if sample.seen == SAMPLE:
            sample.whole = False
            break
        sample.seen += 1
        try:
            held = task.chunks(document)
        except InputError:
            if not skip_bad:
                raise
            sample.skipped += 1
            continue
        sample.documents.append(document)
        sample.chunks.append(held)
    if not sample.chunks:
        raise InputError(
            "The corpus holds no example that can be used", expected="at least one document"
        )
    return sample


def count_documents(corpus: Corpus, sample: Sample) -> tuple[int, str]:
    """Documents of the whole corpus, and how that is known."""
    if sample.whole:
        return sample.seen, "every document"
    first = f"the first {sample.seen:,} documents"
    described = corpus.describe()
    sources = [] if described.get("selections") else described["sources"]
    known = _by_rows(sources) or _by_bytes(sources, sample.seen)
    if known is not None:
        return max(known[0], sample.seen), f"{first}, and {known[1]}"
    count = 0
    with Progress("counting", None, "documents") as progress:
        for _ in corpus.documents():
            count += 1
            progress.advance()
    return count, f"{first}, and a count of the rest"


def _by_rows(sources: Sequence[dict[str, Any]]) -> tuple[int, str] | None:
    """From sources that say how many rows they have; a text file is one document."""
    names = [str(source.get("name", "")) for source in sources]
    if sources and all("rows" in source for source in sources):
        return sum(int(source["rows"]) for source in sources), "the number of rows"
    if names and all(name.endswith(TEXT) for name in names):
        return len(names), "the number of files"
    if names and all(name.endswith(".parquet") and Path(name).is_file() for name in names):
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(name).num_rows for name in names), "the number of rows"
    return None


def _by_bytes(sources: Sequence[dict[str, Any]], seen: int) -> tuple[int, str] | None:
    """From the bytes of the first `seen` lines and those of all files."""
    names = [str(source.get("name", "")) for source in sources]
    if not all(name.endswith(LINES) and Path(name).is_file() for name in names):
        return None
    total = sum(Path(name).stat().st_size for name in names)
    taken = sum(len(line) for line in itertools.islice(_lines(names), seen))
    return (round(seen * total / taken), "the bytes of the rest") if taken else None


def _lines(names: Sequence[str]) -> Iterator[bytes]:
    for name in names:
        with Path(name).open("rb") as file:
            yield from (line for line in file if line.strip())


# -- time and memory -------------------------------------------------------------------------


@dataclass
class _Timing:
    """Tokens per second, peak bytes, and bytes of one row of features."""

    rate: float
    peak: int
    row_bytes: float


def _measure(gradients: Gradients, chunks: Sequence[Chunk], budget: int) -> _Timing:
    """Time a few batches from the longest to the shortest, after a warm-up on the longest.

    The batches are those of the sample, sorted by length as the build would sort a shard.
    """
    gradients.learn_sharing(chunks[0])
    batches = batches_by_length([chunk.length for chunk in chunks], budget)
    step = max(1, len(batches) // TIMED)
    timed = batches[::step]
    storage = gradients.features.storage
    blocks = gradients.layout.blocks
    statistics = Autocorrelation(blocks, widest_gathered(storage))
    basis = _any_basis(blocks, storage)
    tokens, seconds, row_bytes = 0, 0.0, 0.0
    with PeakMemory(gradients.task.device) as memory:
        for number, part in enumerate([timed[0], *timed]):
            started = time.perf_counter()
            # The way of a shard: what does not fit is halved and tried again.
            for _, made in gradients.stream([chunks[i] for i in part], budget):
                u = made.u.float().cpu()
                statistics.add(u)
                encoded = encode(blocks, basis, u, storage)
                row_bytes = sum(value.nbytes for value in encoded.values()) / len(u)
            if number:  # the first is the warm-up
                seconds += time.perf_counter() - started
                tokens += sum(chunks[i].length for i in part)
            if seconds > PATIENCE:
                break
    return _Timing(tokens / max(seconds, 1e-9), memory.bytes, row_bytes)


def _any_basis(blocks: Sequence[Block], storage: str) -> Basis:
    """A basis that costs as much to apply as the calibration's."""
    turned = _turned(blocks, storage)
    eyes = tuple(torch.eye(b.size) if b in turned else None for b in blocks)
    return Basis(eyes, eyes)


def _turned(blocks: Sequence[Block], storage: str) -> list[Block]:
    """Blocks that the calibration finds a basis for."""
    if storage == "float32" or stored_rank(storage) is not None:
        return []
    return [block for block in blocks if block.size <= TURNED_LIMIT]


def _factor_seconds(blocks: Sequence[Block], storage: str) -> float:
    """Of the eigendecompositions at either end of a build: one is timed, its cube law used."""
    pooled = [block.size for block in blocks if block.size <= widest_gathered(storage)]
    largest = max(pooled, default=0)
    width = min(largest, TIMED_WIDTH)
    if not width:
        return 0.0
    matrix = torch.eye(width, dtype=torch.float64) + torch.ones((width, width)) / width
    torch.linalg.eigh(matrix)
    started = time.perf_counter()
    torch.linalg.eigh(matrix)
    once = time.perf_counter() - started
    calibrated = [block.size for block in _turned(blocks, storage)]
    return sum(once * (size / width) ** 3 for size in [*calibrated, *pooled])


# -- disk ------------------------------------------------------------------------------------


def stored_bytes(sample: Sample) -> int:
    """Bytes of the sample as a corpus shard, which is written once to see."""
    held = list(zip(sample.documents, sample.chunks, strict=True))
    with tempfile.TemporaryDirectory(prefix="headwater-") as folder:
        path = Path(folder) / "sample.parquet"
        write_parquet(path, held)
        return path.stat().st_size


def _statistics_bytes(task: Task, blocks: Sequence[Block], storage: str) -> int:
    """Autocorrelation (float64), basis and its inverse (float32), references, token counts."""
    total = sum(8 * b.size**2 for b in blocks if b.size <= widest_gathered(storage))
    total += sum(2 * 4 * b.size**2 for b in _turned(blocks, storage))
    total += 4 * REFERENCES * sum(b.size for b in blocks)
    return total + 8 * int(getattr(task, "vocabulary", 0))
