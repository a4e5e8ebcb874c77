"""Whether an index's files are the bytes that were recorded of them, finished or half-built."""

from __future__ import annotations

from pathlib import Path

from headwater.engine.files import checksum, inside, read_json
from headwater.engine.progress import Progress
from headwater.index.manifest import NAME, SETS, Manifest, read_manifest


def damaged(folder: Path) -> list[str]:
    """Files whose bytes are not what was recorded of them, by name; reads everything.

    Of a half-built index the corpus, the calibration and the finished shards are checked.
    """
    expected = _expected(folder, read_manifest(folder), examples=True)
    for path in sorted((folder / SETS).glob(f"*/{NAME}")):
        own = _expected(path.parent, read_manifest(path.parent), examples=False)
        expected += [(f"{SETS}/{path.parent.name}/{name}", value) for name, value in own]
    found: list[str] = []
    with Progress("checking", len(expected), "files") as progress:
        for name, value in expected:
            if not _agrees(folder, name, value):
                found.append(name)
            progress.advance()
    return found


def _expected(folder: Path, manifest: Manifest, *, examples: bool) -> list[tuple[str, str]]:
    expected: list[tuple[str, str]] = []
    if examples:
        shards = manifest["corpus"]["shards"]
        expected = [(f"corpus/{one['name']}.parquet", str(one["checksum"])) for one in shards]
    if examples and manifest["corpus"].get("unigrams"):
        expected.append(("corpus/unigrams.safetensors", manifest["corpus"]["unigrams"]))
    if not manifest["features"]:
        return sorted(expected)
    expected.append(("statistics/calibration.safetensors", manifest["calibration"]["checksum"]))
    if manifest["complete"]:
        shards = manifest["shards"]
        total = manifest["statistics"]["checksum"]
        expected.append(("statistics/autocorrelation.safetensors", total))
    else:
        names = [shard["name"] for shard in manifest["corpus"]["shards"]]
        marks = {name: inside(folder / "done", f"{name}.json") for name in names}
        shards = [{"name": n, **read_json(mark)} for n, mark in marks.items() if mark.exists()]
    expected += [(f"features/{shard['name']}.safetensors", shard["checksum"]) for shard in shards]
    return sorted(expected)


def _agrees(folder: Path, name: str, value: str) -> bool:
    path = inside(folder, name)
    return path.exists() and checksum(path) == value
