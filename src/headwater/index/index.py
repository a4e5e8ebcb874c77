"""An index: a corpus prepared for a task, on disk. It knows nothing of methods or answers.

Opening reads the manifest and maps the shards; the model is loaded only when gradients are asked
for. Rows are chunks; the examples that are ranked are documents, whose rows stand together.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import inside, read_json
from headwater.gradients.features import Features
from headwater.index.layouts import layout_from
from headwater.index.manifest import Manifest, corpus_folder, read_manifest, require_same
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    import torch

    from headwater.corpus.corpus import Corpus
    from headwater.corpus.document import Document
    from headwater.curvature.autocorrelation import Autocorrelation
    from headwater.gradients.compute import Gradients
    from headwater.gradients.layout import Block
    from headwater.index.build import Plan
    from headwater.index.calibration import Calibration
    from headwater.index.examples import Examples
    from headwater.tasks.query import Query
    from headwater.tasks.task import Chunk, Task

QUERY_BUDGET = 1024  # tokens of a batch of queries


@dataclass(frozen=True)
class Shard:
    """Features of a run of documents, as memory maps.

    Args:
        first: position of its first document in the corpus. documents: how many.
        u: stored numbers [rows, size]. scale: or None (float32). norm: [rows, blocks].
        document: int32 [rows], counted within the shard. weight: 1 - p [rows], or None.
    """

    first: int
    documents: int
    u: torch.Tensor
    scale: torch.Tensor | None
    norm: torch.Tensor
    document: torch.Tensor
    weight: torch.Tensor | None

    @property
    def one_to_one(self) -> bool:
        """Whether every document is a single row."""
        return len(self.document) == self.documents


class Index:
    """An index on disk; open one with `Index.open`, make one with `Index.build`."""

    def __init__(
        self, path: Path, manifest: Manifest, task: Task | None, *, trusted: bool = False
    ) -> None:
        self.path, self.manifest = path, manifest
        self._task, self._trusted = task, trusted
        self._gradients: Gradients | None = None
        self.opened: dict[Any, Any] = {}  # evidence that was opened for this index, by its kind
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str] | None,
        task: Task | Texts,
        corpus: Corpus,
        features: Features | None = Features(),  # noqa: B008 - frozen
        plan: Plan | None = None,
    ) -> Index:
        """Build an index, or go on with a half-built one.

        Args:
            path: its folder; None = a temporary one that goes with the object.
            task, corpus, features: what of what. None stores no features, for evidence that
                needs none; then `task` may also be `Texts()`, for a corpus without a model.
            plan: how it is run (batch budget, shard size, workers, skipping bad examples).

        Raises:
            MismatchError: when the folder holds an index of something else.
            InputError, NumericError, ResourceError: see `index.build`.
        """
        from headwater.index.build import Plan, build

        temporary = tempfile.TemporaryDirectory(prefix="headwater-") if path is None else None
        folder = Path(temporary.name if temporary is not None else str(path))
        build(folder, task, corpus, features, plan or Plan())
        held = None if isinstance(task, Texts) else task
        index = cls(folder, read_manifest(folder), held)
        index._temporary = temporary
        return index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        task: Task | None = None,
        *,
        trust_model: bool = False,
        unfinished: bool = False,
    ) -> Index:
        """Open an index.

        Args:
            path: its folder.
            task: the task it was built with; for language models it loads itself when needed.
            trust_model: load the model that the manifest names although another user wrote it.
            unfinished: take one that is not finished, too: to go on with an append.

        Raises:
            InputError: when there is none, or it is not finished.
        """
        folder = Path(path)
        manifest = read_manifest(folder)
        if not (manifest["complete"] or unfinished):
            raise _unfinished(folder, manifest)
        index = cls(folder, manifest, task, trusted=trust_model)
        if task is not None:
            require_same(manifest["task"], task.describe(), "task")
        return index

    def append(self, corpus: Corpus, plan: Plan | None = None) -> None:
        """Add examples with the index's own calibration; new shards, the old ones untouched."""
        from headwater.index.append import append
        from headwater.index.build import Plan

        append(self, corpus, plan or Plan())
        self.manifest = read_manifest(self.path)
        for name in ("examples", "_shards"):
            self.__dict__.pop(name, None)
        self.opened.clear()

    # -- what it holds --------------------------------------------------------------------

    def __len__(self) -> int:
        return self.manifest["corpus"]["documents"]

    def __repr__(self) -> str:
        size = self.manifest["corpus"]
        return (
            f"Index({str(self.path)!r}: {size['documents']:,} examples, {size['tokens']:,} tokens, "
            + (f"{self.size:,} dimensions, {self.features.storage})" if self.size else "texts)")
        )

    @property
    def has_features(self) -> bool:
        """Whether gradients are stored; without them it holds its examples only."""
        return bool(self.manifest["features"])

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the feature vector."""
        return layout_from(self.manifest["layout"])

    @property
    def size(self) -> int:
        """Dimensions of the feature vector; 0 without features."""
        return 0 if not self.blocks else self.blocks[-1].offset + self.blocks[-1].size

    @cached_property
    def features(self) -> Features:
        """What is stored of each example.

        Raises:
            InputError: for an index without features.
        """
        if not self.has_features:
            raise InputError(
                "The index holds no features",
                do="build one with features, or use a method that needs none: bm25, tantivy, dense",
            )
        return Features.from_description(self.manifest["features"])

    @cached_property
    def calibration(self) -> Calibration:
        """The frozen basis, reference features and second moment."""
        from headwater.index.calibration import load_calibration

        path = self.path / "statistics" / "calibration.safetensors"
        return load_calibration(path, self.blocks, self.manifest["calibration"]["second_moment"])

    @cached_property
    def _shards(self) -> list[Shard]:
        if not self.manifest["complete"]:  # when this was built, other workers were not done
            self.manifest = read_manifest(self.path)
        if not self.manifest["complete"]:
            raise _unfinished(self.path, self.manifest)
        return [self._map(i) for i in range(len(self.manifest["shards"]))]

    def shards(self) -> Iterator[Shard]:
        """Features of all documents, in order."""
        yield from self._shards

    def _map(self, number: int) -> Shard:
        from headwater.index.mapped import map_tensors

        record = self.manifest["shards"][number]
        path = inside(self.path / "features", f"{record['name']}.safetensors")
        if not path.exists() or path.stat().st_size != record["bytes"]:
            raise DamageError(
                f"Shard {record['name']} is damaged or missing ({path})",
                expected=f"{record['bytes']} bytes",
                found=path.stat().st_size if path.exists() else "no file",
                do="run the build command again: only this shard is made anew",
            )
        t = map_tensors(path)
        return Shard(
            int(self.examples.starts[number]),
            int(self.examples.starts[number + 1] - self.examples.starts[number]),
            t["u"],
            t.get("scale"),
            t["norm"],
            t["document"],
            t.get("weight"),
        )

    def autocorrelation(self) -> Autocorrelation:
        """R of the training examples' features, with the count it is a mean of."""
        from headwater.curvature.autocorrelation import Autocorrelation
        from headwater.index.mapped import map_tensors

        path = self.path / "statistics" / "autocorrelation.safetensors"
        return Autocorrelation.from_tensors(self.blocks, map_tensors(path))

    def spectrum(self) -> np.ndarray[Any, Any]:
        """Eigenvalues of R, all blocks pooled, descending, float64."""
        from headwater.index.mapped import map_tensors

        tensors = map_tensors(self.path / "statistics" / "autocorrelation.safetensors")
        if "spectrum" in tensors:
            return tensors["spectrum"].numpy()
        means = self.autocorrelation().means()
        if all(mean is None for mean in means):
            raise InputError("The index has no autocorrelation", do="build with a projection")
        from headwater.curvature.autocorrelation import pooled_spectrum

        return pooled_spectrum(means)

    def unigrams(self) -> np.ndarray[Any, Any] | None:
        """How often each token stands in the corpus, int64 [vocabulary]; None for other tasks."""
        from headwater.index.mapped import map_tensors

        path = corpus_folder(self.path) / "unigrams.safetensors"
        return map_tensors(path)["counts"].numpy() if path.exists() else None

    @cached_property
    def examples(self) -> Examples:
        """The examples themselves."""
        from headwater.index.examples import Examples

        return Examples(corpus_folder(self.path), self.manifest["corpus"]["shards"])

    @property
    def ids(self) -> list[str]:
        """Ids of all documents, in order."""
        return self.examples.ids

    def metadata(self, column: str) -> list[Any]:
        """One metadata value for each document (None where it has none).

        Raises:
            InputError: when no document has such a column; names those that are there.
        """
        return self.examples.metadata(column)

    def documents(self, positions: Sequence[int]) -> list[Document]:
        """The documents at these positions."""
        return self.examples.documents(positions)

    def stream(self) -> Iterator[Document]:
        """All documents in order, a shard in memory at a time."""
        return self.examples.stream()

    def chunks(self, positions: Sequence[int]) -> list[list[Chunk]]:
        """The chunks of the documents at these positions."""
        from headwater.index.corpus_shards import chunks_of

        columns = ["id", "content", "arrays", "metadata", "chunks"]
        return chunks_of(self.task, self.examples.rows(positions, columns))

    # -- what needs the model -------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task; a language model named in the manifest is loaded now.

        Raises:
            InputError: when the task cannot be loaded from its description.
            MismatchError: when the loaded model is not the one the index was built with.
        """
        if self._task is None:
            return self.load_task()
        return self._task

    def load_task(self, name: str | None = None, **options: Any) -> Task:
        """Load the language model of the manifest now, and keep it.

        Args:
            name: where the same model is instead; it is then trusted.
            options: for `CausalLM.load`, in place of what the manifest says (device, for example).

        Raises:
            InputError, MismatchError: see `task`.
        """
        from headwater.index.model import load_task

        self._task = load_task(self.path, self.manifest, name, trusted=self._trusted, **options)
        return self._task

    @property
    def gradients(self) -> Gradients:
        """The gradients of the task under this index's features."""
        if self._gradients is None:
            from headwater.gradients.compute import Gradients

            self._gradients = Gradients(
                self.task,
                self.features,
                names=self.manifest["parameters"],
                moment=self.calibration.moment,
                bases=self.calibration.bases,
            )
        return self._gradients

    def query_features(self, queries: Sequence[Query]) -> np.ndarray[Any, Any]:
        """Projected gradients of the queries' measurements, float32 [queries, size]."""
        return self.gradients.queries(queries, QUERY_BUDGET)

    # -- integrity ------------------------------------------------------------------------

    def verify(self) -> list[str]:
        """Names of the files whose bytes are not what the manifest says; reads everything."""
        from headwater.index.integrity import damaged

        return damaged(self.path)

    def skipped(self) -> list[dict[str, str]]:
        """Examples that were left out, of the corpus or for their numbers, with the reason."""
        path = corpus_folder(self.path) / "summary.json"
        listed: list[dict[str, str]] = read_json(path)["skipped"] if path.exists() else []
        names = [name for shard in self.manifest["shards"] for name in shard.get("skipped", [])]
        reason = "its loss or gradient is not finite"
        return listed + [{"example": name, "reason": reason} for name in names]


def _unfinished(folder: Path, manifest: Manifest) -> InputError:
    names = [shard["name"] for shard in manifest["corpus"]["shards"]]
    done = sum((folder / "done" / f"{name}.json").exists() for name in names)
    return InputError(
        f"The index at {folder} is not finished",
        expected=f"{len(names)} shards",
        found=f"{done} done",
        do="run the build command again: it goes on where it stopped",
    )
