"""Evidence that is kept beside an index's features, by what made it: its tokenizer, its encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.engine.errors import HeadwaterError
from headwater.engine.files import read_json
from headwater.index.store import RECORD, stores


def kept_evidence(index_folder: Path) -> list[dict[str, str]]:
    """`kind`, `title` and `folder` (within the index) of every finished store."""
    return [
        {"kind": kind, "title": _title(kind, folder), "folder": f"{kind}/{folder.name}"}
        for kind, folder in stores(index_folder)
    ]


def evidence_rows(kept: list[dict[str, str]]) -> list[tuple[str, str]]:
    """`kept_evidence` as rows of a table."""
    return [(one["kind"], f"{one['title']} ({one['folder']})") for one in kept]


def _title(kind: str, folder: Path) -> str:
    try:
        record: Any = read_json(folder / RECORD)
        return TITLES[kind](record)
    except (HeadwaterError, KeyError, TypeError, AttributeError):
        return "unknown"  # whether it is damaged is said elsewhere


def _verbatim(record: dict[str, Any]) -> str:
    made = record["tokenizer"]
    if isinstance(made, str):
        return f"vocabulary of the tokenizer {made}"
    return f"phrases by the tokenizer {made['name']}"


def _lexical(record: dict[str, Any]) -> str:
    settings = record["settings"]
    if "ranker" in settings:
        return f"BM25 ({settings['ranker']})"
    stemmer = settings["stemmer"] or "not"
    return f"BM25 (k1 {settings['k1']:g}, b {settings['b']:g}, words stemmed: {stemmer})"


def _semantic(record: dict[str, Any]) -> str:
    settings = record["settings"]
    if settings["ranker"] == "dense":
        return f"sentence embeddings by {settings['encoder']['encoder']}"
    whitened = ", whitened" if "whiten" in settings else ""
    return f"hidden states of layer {settings['layer']}, {settings['pooling']}{whitened}"


def _curvature(record: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in record["settings"].items())


TITLES = {
    "verbatim": _verbatim,
    "lexical": _lexical,
    "semantic": _semantic,
    "curvature": _curvature,
}
