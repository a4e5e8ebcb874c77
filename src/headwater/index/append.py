"""Appending: new corpus shards after the old ones, made with the frozen calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.engine.files import locked, read_json, write_json
from headwater.index.build import _build_shards, finish
from headwater.index.corpus_shards import Ingest
from headwater.index.manifest import read_manifest, write_manifest

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.index.build import Plan
    from headwater.index.index import Index


def append(index: Index, corpus: Corpus, plan: Plan) -> None:
    """Add the examples of `corpus` to a finished index.

    Raises:
        InputError: when an id is already there; then nothing has changed.
    """
    from safetensors.numpy import save_file

    folder = index.path
    with locked(folder / ".setup.lock", f"The index at {folder}"):
        manifest = read_manifest(folder)
        old = read_json(folder / "corpus" / "summary.json")
        ingest = Ingest(folder / "corpus", index.task, manifest["shard_rows"], plan.skip_bad)
        new = ingest.run(corpus, first=len(old["shards"]), taken=set(index.ids))
        before = index.unigrams()
        if ingest.unigrams is not None and before is not None:
            counts = {"counts": ingest.unigrams + before}
            save_file(counts, folder / "corpus" / "unigrams.safetensors")
        for field in ("documents", "rows", "tokens", "skipped_count"):
            old[field] += new[field]
        old["shards"] += new["shards"]
        old["skipped"] += new["skipped"]
        old["appended"] = [*old.get("appended", []), new["fingerprint"]]
        write_json(folder / "corpus" / "summary.json", old)
        manifest["corpus"] = {k: v for k, v in old.items() if k != "skipped"}
        manifest["complete"] = False
        write_manifest(folder, manifest)
    _build_shards(folder, manifest, index.gradients, plan)
    finish(folder)
