"""The corpus of an index that was begun: taken over when it is the same, mended where damaged.

Once there is a manifest it is the truth, and `summary.json` and the token counts follow it: what an
append prepared becomes part of the index in the step that writes the manifest, or not at all.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import DamageError, InputError, MismatchError
from headwater.engine.files import checksum, inside, read_json, sweep, write_atomic, write_json
from headwater.index.corpus_shards import Ingest, count_tokens, fingerprint
from headwater.index.manifest import Manifest, read_manifest, require_same

if TYPE_CHECKING:
    from headwater.corpus.corpus import Corpus
    from headwater.tasks.task import Task
    from headwater.tasks.texts import Texts

logger = logging.getLogger(__name__)

SUMMARY, COUNTS = "summary.json", "unigrams.safetensors"
NEXT_SUMMARY, NEXT_COUNTS = "summary.appended.json", "unigrams.appended.safetensors"
AGAIN = "again"  # a folder, for as long as damaged shards are made anew
SUMMARY_ONLY = ("skipped", "task", "shard_rows")  # of the summary, not repeated in the manifest


def recorded(summary: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says of the corpus."""
    return {name: value for name, value in summary.items() if name not in SUMMARY_ONLY}


def load_or_ingest(
    folder: Path, task: Task | Texts, corpus: Corpus, shard_rows: int, skip_bad: bool
) -> dict[str, Any]:
    """The corpus's summary: from an earlier start that did not come to a manifest, or made now.

    Raises:
        MismatchError: when that start was with another task or corpus.
    """
    summary = _read_summary(folder)
    if summary is not None:
        require_same(summary["task"], task.describe(), "task")
        _part(summary, corpus)
        if summary["shard_rows"] == shard_rows and not _damaged(folder, summary):
            return summary
    ingest = Ingest(folder, task, shard_rows, skip_bad)
    summary = ingest.run(corpus)
    _remove_others(folder, summary["shards"])
    summary |= {"task": task.describe(), "shard_rows": shard_rows, "unigrams": None}
    if ingest.unigrams is not None:
        summary["unigrams"] = write_counts(folder / COUNTS, ingest.unigrams)
    write_json(folder / SUMMARY, summary)
    return summary


def write_counts(path: Path, counts: np.ndarray[Any, Any]) -> str:
    """Write token counts, int64 [vocabulary]; returns the file's checksum."""
    from safetensors.numpy import save_file

    write_atomic(path, lambda temporary: save_file({"counts": counts}, temporary))
    return checksum(path)


def require_corpus(folder: Path, manifest: Manifest, task: Task | Texts, corpus: Corpus) -> None:
    """See that `corpus` is the index's, or one appended to it, and mend from it what is damaged.

    Raises:
        MismatchError: when it is another corpus.
        DamageError: when what is damaged cannot be made again from this corpus.
    """
    held = manifest["corpus"]
    part = _part(held, corpus)
    damaged = _damaged(folder, held)
    if damaged:
        firsts = [0, *(one["first"] for one in held.get("appended", []))]
        skip_bad = held["skipped_count"] > 0
        ingest = Ingest(folder / AGAIN, task, manifest["shard_rows"], skip_bad)
        _restore(ingest, corpus, firsts[part], damaged)
    if _read_summary(folder) is None:
        logger.warning("%s is damaged and is written again", folder / SUMMARY)
        rest = {"task": manifest["task"], "shard_rows": manifest["shard_rows"], "skipped": []}
        write_json(folder / SUMMARY, held | rest)
    counts = folder / COUNTS
    if held["unigrams"] and not (counts.exists() and checksum(counts) == held["unigrams"]):
        logger.warning("%s is damaged and is counted again", counts)
        size = getattr(task, "vocabulary")  # noqa: B009 - language models only
        write_counts(counts, count_tokens(folder, held["shards"], size))


def settle(folder: Path) -> Manifest:
    """The manifest, once an append that was cut off is finished or forgotten; needs the lock."""
    for place in (folder, folder / "corpus"):
        sweep(place)
    manifest = read_manifest(folder)
    corpus = folder / "corpus"
    shutil.rmtree(corpus / AGAIN, ignore_errors=True)
    following, counts = corpus / NEXT_SUMMARY, corpus / NEXT_COUNTS
    if following.exists():
        if read_json(following)["shards"] == manifest["corpus"]["shards"]:
            if counts.exists():
                counts.replace(corpus / COUNTS)
            following.replace(corpus / SUMMARY)
        following.unlink(missing_ok=True)
    counts.unlink(missing_ok=True)
    _remove_others(corpus, manifest["corpus"]["shards"])
    return manifest


def _read_summary(folder: Path) -> dict[str, Any] | None:
    try:
        return read_json(folder / SUMMARY)
    except (DamageError, InputError):  # damaged or not there
        return None


def _remove_others(folder: Path, shards: list[dict[str, Any]]) -> None:
    """Remove corpus shards that an ingest cut off before it was recorded left behind."""
    names = {shard["name"] for shard in shards}
    for path in folder.glob("*.parquet"):
        if path.stem not in names:
            path.unlink()


def _part(held: dict[str, Any], corpus: Corpus) -> int:
    """Which part of the corpus this is: 0 = the first, then those appended."""
    if held["described"] == corpus.describe() and _identified(held["described"]):
        return 0
    known = [held["fingerprint"], *(part["fingerprint"] for part in held.get("appended", []))]
    found = fingerprint(corpus)
    if found not in known:
        raise MismatchError(
            "The index was begun with another corpus",
            expected=f"fingerprint {known[0]}",
            found=found,
            do="build into another folder, or append with --append",
        )
    return known.index(found)


def _identified(described: dict[str, Any]) -> bool:
    """Whether a description can be of one corpus only: files with size and time, no functions."""
    sources, selections = described.get("sources") or [], described.get("selections") or []
    files = all(source.get("size") is not None and source.get("mtime") for source in sources)
    return bool(sources) and files and not any("where" in one for one in selections)


def _damaged(folder: Path, held: dict[str, Any]) -> list[dict[str, Any]]:
    def whole(shard: dict[str, Any]) -> bool:
        path = inside(folder, f"{shard['name']}.parquet")
        return path.exists() and checksum(path) == shard["checksum"]

    return [shard for shard in held["shards"] if not whole(shard)]


def _restore(ingest: Ingest, corpus: Corpus, first: int, damaged: list[dict[str, Any]]) -> None:
    """Read `corpus` again, beside, and take from it the shards that are damaged."""
    again = ingest.folder
    logger.warning("%s in the corpus damaged; it is read again", _names(damaged))
    try:
        ingest.run(corpus, first=first)
        lost = [shard for shard in damaged if shard not in ingest.shards]
        if lost:
            raise DamageError(
                f"{_names(lost)} of the index's corpus damaged and cannot be made the same again",
                expected="the corpus and the software it was built with",
                do="build with the corpus that these came from, or into a new folder",
            )
        for shard in damaged:
            name = f"{shard['name']}.parquet"
            (again / name).replace(again.parent / name)
    finally:
        shutil.rmtree(again, ignore_errors=True)


def _names(shards: list[dict[str, Any]]) -> str:
    names = ", ".join(f"{shard['name']}.parquet" for shard in shards)
    return f"{names} {'is' if len(shards) == 1 else 'are'}"
