"""Appending: new corpus shards after the old ones, made with the frozen calibration.

The new shards, token counts and summary are laid beside the old ones; the manifest, written whole,
makes them part of the index in one step. Cut off before it, nothing has changed; after it, the
build goes on, from here or from `Index.build`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.corpus.duplicates import DuplicateCounter
from headwater.engine.errors import InputError, MismatchError
from headwater.engine.files import locked, read_json, write_json
from headwater.index.build import build_shards, finish
from headwater.index.corpus_resume import (
    NEXT_COUNTS,
    NEXT_SUMMARY,
    SUMMARY,
    recorded,
    settle,
    write_counts,
)
from headwater.index.corpus_shards import Ingest, documents_of, fingerprint, read_shard
from headwater.index.manifest import Manifest, write_manifest
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.corpus.corpus import Corpus
    from headwater.index.build import Plan
    from headwater.index.index import Index
    from headwater.tasks.task import Task


def append(index: Index, corpus: Corpus, plan: Plan) -> None:
    """Add the examples of `corpus` to a finished index, or go on with doing so.

    Raises:
        InputError: when an id is already there; then nothing has changed.
        MismatchError: when one of the two corpora is packed into windows and the other is not.
    """
    folder = index.path
    task = index.task if index.manifest["task"]["kind"] != Texts.kind else Texts()
    _require_packing(index.manifest, corpus)
    workers = plan.worker[1] > 1
    with locked(folder / ".setup.lock", f"The index at {folder}", wait=workers):
        manifest = settle(folder)
        if not _begun(manifest, corpus, workers):
            try:
                _add(folder, manifest, task, corpus, plan)
            finally:
                manifest = settle(folder)
    if manifest["features"]:
        build_shards(folder, manifest, index.gradients, plan)
    finish(folder)


def _require_packing(manifest: Manifest, corpus: Corpus) -> None:
    """Windows of packed documents and documents by themselves are different examples."""
    described = (manifest["corpus"]["described"], corpus.describe())
    held, given = (
        any(source.get("name") == "packing" for source in one["sources"]) for one in described
    )
    if held != given:
        kinds = {True: "windows of packed documents", False: "documents by themselves"}
        raise MismatchError(
            "The index and the new examples are not packed alike",
            expected=kinds[held],
            found=kinds[given],
            do="append with --packing (hw.pack)" if held else "append without --packing (hw.pack)",
        )


def _begun(manifest: Manifest, corpus: Corpus, workers: bool) -> bool:
    """Whether an earlier start, or another worker, has put this corpus into the manifest."""
    if manifest["complete"] and not workers:
        return False
    last = manifest["corpus"].get("appended", [])[-1:]
    if last and last[0]["fingerprint"] == fingerprint(corpus):
        return True
    if not manifest["complete"]:
        raise InputError(
            "The index is not finished, so nothing can be appended to it",
            do="run the build, or the append it was stopped in, again; then append this",
        )
    return False


def _add(folder: Path, manifest: Manifest, task: Task | Texts, corpus: Corpus, plan: Plan) -> None:
    from headwater.index.mapped import map_tensors

    place = folder / "corpus"
    shards = manifest["corpus"]["shards"]
    paths = [place / f"{shard['name']}.parquet" for shard in shards]
    taken = {row["id"] for path in paths for row in read_shard(path, ["id"])}
    ingest = Ingest(place, task, manifest["shard_rows"], plan.skip_bad)
    new = ingest.run(corpus, first=len(shards), taken=taken)
    summary = joined(read_json(place / SUMMARY), new)
    summary["duplicates"] = _duplicates(place, summary["shards"])
    if ingest.unigrams is not None:
        before = map_tensors(place / "unigrams.safetensors")["counts"].numpy()
        summary["unigrams"] = write_counts(place / NEXT_COUNTS, ingest.unigrams + before)
    write_json(place / NEXT_SUMMARY, summary)
    write_manifest(folder, manifest | {"corpus": recorded(summary), "complete": False})


def _duplicates(folder: Path, shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Repeated texts among the old examples and the new ones."""
    counter = DuplicateCounter()
    for shard in shards:
        rows = read_shard(
            folder / f"{shard['name']}.parquet", ["id", "content", "arrays", "metadata"]
        )
        for document in documents_of(rows):
            counter.add(document)
    return counter.report()


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The summary of a corpus and of what is appended to it."""
    part = {"fingerprint": new["fingerprint"], "first": len(old["shards"])}
    counted = ("documents", "rows", "tokens", "skipped_count")
    sums = {name: old[name] + new[name] for name in counted}
    lists = {name: old[name] + new[name] for name in ("shards", "skipped")}
    return old | sums | lists | {"appended": [*old.get("appended", []), part]}
