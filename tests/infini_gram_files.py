"""Folders in infini-gram's format, written by its definition."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write(
    folder: Path,
    shards: Sequence[Sequence[Sequence[int]]],
    *,
    width: int = 2,
    pointer: int | None = None,
    metadata: bool = False,
    numbered: bool = True,
) -> Path:
    """The format by its definition: suffixes sorted as byte strings, little-endian throughout."""
    folder.mkdir(exist_ok=True)
    for number, documents in enumerate(shards):
        name = f".{number}" if numbered else ""
        text, starts = b"", []
        for ids in documents:
            starts.append(len(text))
            text += b"\xff" * width + np.array(ids, dtype=f"<u{width}").tobytes()
        order = sorted(range(0, len(text), width), key=lambda place: text[place:])
        size = pointer or max(1, int(np.ceil(np.log2(len(text)) / 8)))
        (folder / f"tokenized{name}").write_bytes(text)
        table = b"".join(place.to_bytes(size, "little") for place in order)
        (folder / f"table{name}").write_bytes(table)
        (folder / f"offset{name}").write_bytes(np.array(starts, dtype="<u8").tobytes())
        if metadata:
            lines = [
                json.dumps({"path": f"f{number}", "linenum": i, "metadata": {"url": f"u{i}"}})
                + "\n"
                for i in range(len(documents))
            ]
            (folder / f"metadata{name}").write_text("".join(lines))
            sizes = [len(line) for line in lines]
            offsets = np.cumsum([0, *sizes])[:-1]
            (folder / f"metaoff{name}").write_bytes(offsets.astype("<u8").tobytes())
    return folder
