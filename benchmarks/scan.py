"""Scan speed beside the machine's own limits and faiss, and recall of the storage types.

    python benchmarks/scan.py [--rows 4096] [--size 53760] [--json F]
    python benchmarks/scan.py --index INDEX --queries QUERIES.jsonl [--json F]

Speed is measured on random features of the given shape, held in memory: one query over fp16 against
the machine's read bandwidth, many over int8 against the bare integer matrix product of the same
shape. faiss (IndexFlatIP, IndexScalarQuantizer) runs in the same process where it is installed.
With `--index` (a float32 index of a real model), recall@100 of int8 and fp16 against float32 is
measured for GradDot, GradCos and TrackStar.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwater.gradients.layout import Block
from headwater.index.calibration import sample_size
from headwater.index.encoding import Basis, bands, encode
from headwater.index.scan import Directions, Products


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--size", type=int, default=53760)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--index")
    parser.add_argument("--queries")
    parser.add_argument("--json")
    return parser.parse_args()


def interleaved(jobs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Best seconds of each job, all jobs once a round."""
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def speed(args: argparse.Namespace) -> dict[str, Any]:
    rows, size = args.rows, args.size
    blocks = [Block(str(i), i * args.block, args.block, 1) for i in range(size // args.block)]
    generator = torch.Generator().manual_seed(0)
    u = torch.randn((rows, size), generator=generator)
    w = torch.randn((256, size), generator=generator)
    half = encode(blocks, Basis.identity(blocks), u, "float16")
    eight = encode(blocks, Basis.identity(blocks), u, "int8")
    every = list(range(len(blocks)))

    def products(count: int, storage: str) -> Products:
        return Products(Directions(w[:count], blocks, every), storage)

    def scan(made: Products, stored: dict[str, torch.Tensor]) -> Callable[[], Any]:
        return lambda: [part.sum() for part in made.rows(stored["u"], stored["scale"])]

    wide = half["u"].view(torch.int16)
    jobs: dict[str, Callable[[], Any]] = {
        "read": lambda: torch.sum(wide.view(torch.int64)),
        "fp16, 1 query": scan(products(1, "float16"), half),
        "int8, 1 query": scan(products(1, "int8"), eight),
    }
    for count in (32, 256):
        q = torch.randint(-127, 128, (size, count), dtype=torch.int8, generator=generator)
        jobs[f"bare int8, {count}"] = lambda q=q: [
            torch._int_mm(eight["u"][i : i + 1024], q) for i in range(0, rows, 1024)
        ]
        jobs[f"int8, {count} queries"] = scan(products(count, "int8"), eight)
    faiss_jobs(jobs, u, w)
    best = interleaved(jobs, args.rounds)
    read = half["u"].nbytes / best["read"]
    table: dict[str, Any] = {"read GB/s": read / 1e9, "bands": len(bands(blocks))}
    print(f"{rows} rows x {size}, {args.threads} threads; read bandwidth {read / 1e9:.1f} GB/s")
    for name, seconds in best.items():
        count = 1 if "1 query" in name else 256 if "256" in name else 32 if "32" in name else 0
        row = {"seconds": seconds, "pairs_per_second": rows * max(count, 1) / seconds}
        if name == "fp16, 1 query":
            row["share_of_read"] = half["u"].nbytes / seconds / read
        if name.startswith("int8, ") and f"bare int8, {count}" in best:
            row["share_of_bare"] = best[f"bare int8, {count}"] / seconds
        table[name] = row
        shares = "".join(f"  {k} {v:.2f}" for k, v in row.items() if k.startswith("share"))
        print(f"{name:34} {seconds * 1e3:9.1f} ms  {row['pairs_per_second']:12.0f} pairs/s{shares}")
    return table


def faiss_jobs(jobs: dict[str, Callable[[], Any]], u: torch.Tensor, w: torch.Tensor) -> None:
    try:
        import faiss
    except ImportError:
        print("faiss is not installed here: its rows are left out")
        return
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(u.shape[1])
    flat.add(u.numpy())
    kinds = faiss.ScalarQuantizer
    half = faiss.IndexScalarQuantizer(u.shape[1], kinds.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    eight = faiss.IndexScalarQuantizer(
        u.shape[1], kinds.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
    )
    for index in (half, eight):
        index.train(u.numpy())
        index.add(u.numpy())
    for name, index in (("flat", flat), ("SQ fp16", half), ("SQ 8 bit", eight)):
        for count in (1, 32, 256):
            queries = w[:count].numpy()
            words = "1 query" if count == 1 else f"{count} queries"
            jobs[f"faiss {name}, {words}"] = lambda i=index, q=queries: i.search(q, 100)


def recall(args: argparse.Namespace) -> dict[str, Any]:
    """Recall@100 of scores after storage against float32, on a real float32 index."""
    import headwater as hw

    index = hw.Index.open(args.index)
    if index.features.storage != "float32":
        raise SystemExit("recall needs an index built with --storage float32")
    lines = Path(args.queries).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    u_q = index.query_features([hw.Query(r["prompt"], r["completion"]) for r in records])
    u = torch.cat([shard.u for shard in index.shards()])
    generator = torch.Generator().manual_seed(0)
    sample = torch.randperm(len(u), generator=generator)[: sample_size(len(u))]
    found: dict[str, Any] = {}
    for method in (hw.GradDot(), hw.GradCos(), hw.TrackStar()):
        prepared = method.prepare(index)
        v = method.directions(index, prepared, u_q)
        scale = torch.ones(len(u)) if prepared.scale is None else torch.from_numpy(prepared.scale)
        exact = (u @ v.T) * scale[:, None]
        for storage in ("float16", "int8"):
            for name, basis in (
                ("own", Basis.identity(index.blocks)),
                ("half-whitened", Basis.half_whitened(index.blocks, u[sample])),
            ):
                stored = encode(index.blocks, basis, u, storage)
                w = basis.direction(index.blocks, v)
                made = Products(Directions(w, index.blocks, range(len(index.blocks))), storage)
                dots = torch.cat(list(made.rows(stored["u"], stored["scale"])))
                value = overlap(exact, dots * scale[:, None], min(100, len(u) // 10))
                found[f"{method.name} {storage} {name} basis"] = value
                print(f"recall@100  {method.title:10} {storage:8} {name:13} basis  {value:.4f}")
    return found


def overlap(exact: torch.Tensor, other: torch.Tensor, k: int) -> float:
    pairs = zip(exact.T, other.T, strict=True)
    return float(
        np.mean(
            [
                len({*a.topk(k).indices.tolist()} & {*b.topk(k).indices.tolist()}) / k
                for a, b in pairs
            ]
        )
    )


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {"torch": torch.__version__, "threads": args.threads}
    result["recall"] = recall(args) if args.index else None
    if not args.index:
        result["speed"] = speed(args)
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
