"""What is in an index folder, finished or half-built, as plain values and as rows of a table.

It reads the manifest and the marks of finished shards; neither model nor features are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from headwater.engine.files import inside, read_json
from headwater.index.feature_sets import in_order
from headwater.index.manifest import NAME, SETS, corpus_folder, read_manifest
from headwater.report.figures import size
from headwater.tasks.texts import Texts

MOST_NAMED = 5  # skipped examples, module types and duplicate groups that a table names


def contents(folder: Path) -> dict[str, Any]:
    """Everything worth knowing of the index, JSON-serialisable.

    Raises:
        InputError, MismatchError, DamageError: see `read_manifest`.
    """
    manifest = read_manifest(folder)
    corpus = manifest["corpus"]
    marks = {shard["name"]: _mark(folder, shard["name"]) for shard in corpus["shards"]}
    skipped = _skipped(folder)
    late = [name for mark in marks.values() if mark for name in mark.get("skipped", [])]
    skipped += [{"example": name, "reason": "loss or gradient not finite"} for name in late]
    blocks = manifest["layout"]
    return {
        "index": str(folder),
        "format": manifest["format"],
        "complete": manifest["complete"],
        "shards": len(marks),
        "shards_done": sum(mark is not None for mark in marks.values()),
        "documents": corpus["documents"],
        "chunks": corpus["rows"],
        "tokens": corpus["tokens"],
        "corpus": corpus["described"],
        "corpus_fingerprint": corpus["fingerprint"],
        "duplicates": corpus["duplicates"],
        "skipped": skipped,
        "skipped_count": corpus["skipped_count"] + len(late),
        "task": manifest["task"],
        "source": manifest["source"],
        "features": manifest["features"],
        "dimensions": sum(block["rows"] * block["columns"] for block in blocks),
        "blocks": len(blocks),
        "coverage": manifest["coverage"],
        "calibration": manifest["calibration"],
        "feature_sets": _sets(folder),
        "budget": manifest["budget"],
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    }


def _sets(folder: Path) -> list[dict[str, Any]]:
    """Feature sets, finished or not; one of an earlier state of the corpus is not complete."""
    shards = read_manifest(folder)["corpus"]["shards"]
    found = {p.parent.name: read_manifest(p.parent) for p in (folder / SETS).glob(f"*/{NAME}")}
    return [
        {
            "name": name,
            "complete": one["complete"] and one["corpus"]["shards"] == shards,
            "features": one["features"],
            "source": one["source"],
        }
        for name, one in sorted(found.items(), key=lambda pair: in_order(pair[0]))
    ]


def _mark(folder: Path, name: str) -> dict[str, Any] | None:
    path = inside(folder / "done", f"{name}.json")
    return cast("dict[str, Any]", read_json(path)) if path.exists() else None


def _skipped(folder: Path) -> list[dict[str, str]]:
    path = corpus_folder(folder) / "summary.json"
    return list(read_json(path)["skipped"]) if path.exists() else []


def content_rows(record: dict[str, Any]) -> list[tuple[str, str]]:
    """`contents` as rows of a table."""
    features, task, source = record["features"], record["task"], record["source"]
    state = "complete" if record["complete"] else "half-built: run the build command again"
    rows = [
        ("index", f"{record['index']} (format {record['format']}, {state})"),
        ("shards", f"{record['shards_done']:,} of {record['shards']:,} done" if features else ""),
        ("examples", _examples(record)),
        ("duplicates", _duplicates(record["duplicates"])),
        ("skipped", _named_skipped(record)),
        ("model", _model(task, source)),
        ("features", _features(features, record) if features else "none: examples only"),
        ("second moment", _moment(record) if features else ""),
        ("eigenvectors", _eigenvectors(record["calibration"].get("eigenvectors"))),
        ("feature sets", _set_names(record["feature_sets"])),
        ("coverage", coverage_line(record["coverage"]) if features else ""),
        ("on disk", size(record["bytes"])),
    ]
    return [row for row in rows if row[1]]


def _eigenvectors(found: dict[str, Any] | None) -> str:
    """How well kept directions stand for all of EK-FAC's."""
    if not found:
        return ""
    held = (
        f"{found['curvature']:.0%} of the curvature kept" if found["curvature"] else "no curvature"
    )
    if found.get("correlation") is None:
        return held
    return (
        f"{held}; agreement with EK-FAC by all directions: correlation "
        f"{found['correlation']:.3f}, relative error {found['relative_error']:.2f} "
        f"({found['queries']} continuations x {found['examples']} examples)"
    )


def _set_names(sets: list[dict[str, Any]]) -> str:
    names = [one["name"] + ("" if one["complete"] else " (not finished)") for one in sets]
    return ", ".join(names)


def _examples(record: dict[str, Any]) -> str:
    documents = f"{record['documents']:,} documents"
    if record["task"]["kind"] == Texts.kind:  # without a tokenizer there are no chunks or tokens
        return documents
    return f"{documents}, {record['chunks']:,} chunks, {record['tokens']:,} tokens"


def _moment(record: dict[str, Any]) -> str:
    return str(record["calibration"]["second_moment"] or "none")


def _duplicates(report: dict[str, Any]) -> str:
    if not report.get("duplicates"):
        return "none"
    largest = report.get("largest") or []
    groups = ", ".join(f"{g['count']} x like {g['example']}" for g in largest[:MOST_NAMED])
    return f"{report['duplicates']:,} repeat an earlier example ({groups})"


def _named_skipped(record: dict[str, Any]) -> str:
    count = record["skipped_count"]
    if not count:
        return "none"
    named = [f"{one['example']}: {one['reason']}" for one in record["skipped"][:MOST_NAMED]]
    more = f"\nand {count - len(named):,} more" if count > len(named) else ""
    return f"{count:,}\n" + "\n".join(named) + more


def _model(task: dict[str, Any], source: dict[str, Any]) -> str:
    if task["kind"] == Texts.kind:
        return "none: texts only"
    name = source.get("name") or task["kind"]
    adapter = f" with adapter {source['adapter']}" if source.get("adapter") else ""
    if task["kind"] != "causal_lm":
        return f"{name}{adapter}"
    specials = [token.upper() for token in ("bos", "eos") if task[token]]
    fed = f"chunks of {task['max_length']:,} tokens"
    return f"{name}{adapter} ({task['dtype']}; {', '.join([fed, *specials])})"


def _features(features: dict[str, Any], record: dict[str, Any]) -> str:
    projection = features["projection"]
    if projection is None:
        how = "full gradients"
    else:
        kinds = {
            "LayerBlocks": "per layer block",
            "TopEigenvectors": "directions of most curvature per module",
        }
        per = kinds.get(projection["kind"], "per module")
        how = f"{projection['rows']} x {projection['columns']} {per}"
    return (
        f"{features['output']} gradients, {how}: {record['dimensions']:,} dimensions in "
        f"{record['blocks']:,} blocks, {features['storage']}, seed {features['seed']}"
    )


def coverage_line(coverage: dict[str, Any]) -> str:
    """The share of parameters attributed, and what is not, by module type."""
    share = (
        f"{coverage['share']:.1%} of {coverage['total']:,} parameters "
        f"({coverage['modules']:,} modules)"
    )
    missing = coverage["missing"]
    if not missing:
        return share
    named = ", ".join(f"{kind} {count:,}" for kind, count in list(missing.items())[:MOST_NAMED])
    return f"{share}; not attributed: {named}"
