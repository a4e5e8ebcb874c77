"""Small indexes to break: a task whose gradients are given, corpora for it, and a folder's bytes.

`Given` is a model of linear layers whose loss has exactly the gradient that an example's columns
hold, so what is stored, scored and summed can be checked against numbers known beforehand.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.tasks.task import Chunk

SIZES = ((4, 6), (3, 5))  # (out, in) of the layers
WIDTH = sum(rows * columns for rows, columns in SIZES)
FULL = {"projection": None, "storage": "float32"}


class Layers(torch.nn.Module):
    """Linear layers side by side, named `part.0`, `part.1`, ..."""

    def __init__(self, sizes: tuple[tuple[int, int], ...], seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.part = torch.nn.ModuleList(
            torch.nn.Linear(columns, rows, bias=False) for rows, columns in sizes
        )


def given_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Its gradient in the weight of layer i is the example's column `g<i>` [out, in]."""
    total: Any = 0.0
    for number, layer in enumerate(model.part):
        g = batch[f"g{number}"]  # one-hot inputs, one for each column of g
        inputs = torch.eye(layer.in_features).expand(len(g), -1, -1).contiguous()
        total = total + (layer(inputs) * g.transpose(1, 2)).sum(dim=(1, 2))
    return total


class Given(hw.Task):
    """Chunks of one example are along its columns' first axis where that has one to spare."""

    kind = "given"

    def __init__(self, sizes: tuple[tuple[int, int], ...] = SIZES, seed: int = 0) -> None:
        super().__init__(
            Layers(sizes, seed), loss=given_loss, margin=lambda m, b: -given_loss(m, b)
        )

    def chunks(self, document: Any) -> list[Chunk]:
        content = document.content
        if content["g0"].ndim == 2:
            return super().chunks(document)
        return [
            Chunk({name: value[i] for name, value in content.items()}, i, 1)
            for i in range(len(content["g0"]))
        ]


def columns_of(u: Any, sizes: tuple[tuple[int, int], ...] = SIZES) -> dict[str, Any]:
    """Feature vectors [..., size] as the columns of `Given`."""
    made, offset = {}, 0
    for number, (rows, columns) in enumerate(sizes):
        part = np.asarray(u, dtype=np.float32)[..., offset : offset + rows * columns]
        made[f"g{number}"] = part.reshape(*part.shape[:-1], rows, columns)
        offset += rows * columns
    return made


def vectors(n: int, seed: int = 0, width: int = WIDTH) -> np.ndarray[Any, Any]:
    """Random feature vectors, float32 [n, width]."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def given_corpus(
    u: Any, prefix: str = "e", sizes: tuple[tuple[int, int], ...] = SIZES, **metadata: Any
) -> hw.Corpus:
    """A corpus whose examples have the gradients u [n, size] ([n, chunks, size])."""
    ids = [f"{prefix}{i:04d}" for i in range(len(u))]
    return hw.Corpus.from_columns(columns_of(u, sizes), ids=ids, metadata=metadata or None)


def given_index(
    folder: Path | None,
    u: Any,
    *,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    shard_rows: int = 7,
    storage: str = "float32",
    **plan: Any,
) -> hw.Index:
    """An index of examples with the gradients u."""
    features = hw.Features(projection=None, storage=storage)  # type: ignore[arg-type]
    plans = hw.Plan(shard_rows=shard_rows, **plan)
    return hw.Index.build(folder, Given(sizes), given_corpus(u, sizes=sizes), features, plans)


def given_query(u: Any, sizes: tuple[tuple[int, int], ...] = SIZES) -> hw.Query:
    """A query with the gradient u [size]."""
    return hw.Query(columns=columns_of(u, sizes))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below the folder with its bytes; what methods keep beside an index left out."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = {str(path.relative_to(folder)): path for path in found}
    return {name: p.read_bytes() for name, p in names.items() if not name.startswith("views/")}


def times(folder: Path) -> dict[str, int]:
    """Every file's time of change, ns."""
    return {n: (folder / n).stat().st_mtime_ns for n in tree(folder)}


def flip(path: Path, at: float = 0.5) -> None:
    """One byte changed, at this share of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(bytes(data))


# -- builds that are stopped ----------------------------------------------------------------------


class Stopped(BaseException):
    """What a killed process does instead of going on: nothing, not even cleaning up."""


@contextmanager
def stopping(after: int) -> Iterator[None]:
    """`after` renames and removals of files happen; then every further one raises `Stopped`."""
    left = after
    originals = {name: getattr(Path, name) for name in ("replace", "unlink")}

    def counted(original: Any) -> Any:
        def call(self: Path, *args: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0 and os.path.lexists(self):
                raise Stopped
            left -= os.path.lexists(self)
            return original(self, *args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, original in originals.items():
            patch.setattr(Path, name, counted(original))
        yield


def process(target: Any, *args: Any) -> Any:
    """Start `target(connection, *args)` in a clean process; returned when it says it begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pandas", "pyarrow.parquet", "safetensors.torch", "headwater.index.append", __name__]
    )
    ours, theirs = context.Pipe()
    started = context.Process(target=target, args=(theirs, *args))
    started.start()
    theirs.close()
    ours.recv()
    return started


def build_given(
    connection: Any, folder: str, examples: int, shard_rows: int, worker: tuple[int, int]
) -> None:
    """Build or resume, in a process of its own."""
    torch.set_num_threads(1)
    task, corpus = Given(), given_corpus(vectors(examples))
    features = hw.Features(projection=None, storage="int8")
    connection.send("begins")
    hw.Index.build(folder, task, corpus, features, hw.Plan(shard_rows=shard_rows, worker=worker))
