"""What each storage keeps of real gradients: bytes of an example, recall of scores, scan time.

    python benchmarks/storage.py --model MODEL --corpus CORPUS --queries QUERIES.jsonl [--json F]

The first documents of a corpus (one chunk each) under a wide projection, in every storage and
under a narrow one, against the wide projection in float32. Recall@k of a query: the share of its k
best examples that are among the k best. GradDot is exact; LoGra's inverse goes by the examples'
Gram matrix in float64, which is exact too and needs no wide R: from the exact features for int8
and float16, from the features as stored for rank c, as an index gathers it. Scans are timed in
turn, on the same rows repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import headwater as hw
from headwater.curvature.truncated import Sought, leading_eigenpairs, truncated_inverse
from headwater.gradients.compute import Gradients
from headwater.gradients.features import stored_rank
from headwater.gradients.layout import Block
from headwater.index.calibration import sample_size
from headwater.index.encoding import Basis, bytes_per_row, decode, encode
from headwater.index.scan import Directions, Products

DAMPING = 0.1
BUDGET = 1024  # tokens of a batch


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--documents", type=int, default=300)
    parser.add_argument("--asked", type=int, default=48, help="queries")
    parser.add_argument("--wide", type=int, default=64)
    parser.add_argument("--narrow", type=int, default=16)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--eigenpairs", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--rows", type=int, default=1024, help="of a timed scan")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    return parser.parse_args()


@dataclass
class Measured:
    """Features of examples u and queries q, float32, under one projection."""

    u: torch.Tensor
    q: torch.Tensor
    blocks: Sequence[Block]


def measure(task: hw.CausalLM, args: argparse.Namespace, side: int) -> Measured:
    gradients = Gradients(task, hw.Features(projection=hw.TwoSided(side, side)))
    documents = itertools.islice(hw.Corpus.open(args.corpus).documents(), args.documents)
    chunks = [task.chunks(document)[0] for document in documents]
    u = torch.zeros((len(chunks), gradients.layout.size))
    for part, made in gradients.stream(chunks, BUDGET):
        u[part] = made.u.float().cpu()
    lines = Path(args.queries).read_text().splitlines()[: args.asked]
    asked = [hw.Query(r["prompt"], r["completion"]) for r in map(json.loads, lines)]
    return Measured(u, torch.from_numpy(gradients.queries(asked, BUDGET)), gradients.layout.blocks)


def logra(blocks: Sequence[Block], u: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """(R + damping * mean eigenvalue)^-1 q of the R of these u, float32."""
    out = torch.zeros_like(q)
    for block in blocks:
        rows, asked = u[:, block.part].double(), q[:, block.part].double()
        floor = DAMPING * float(rows.square().sum()) / len(u) / block.size
        gram = rows @ rows.T
        gram.diagonal().add_(len(u) * floor)
        inside = torch.linalg.solve(gram, rows @ asked.T).T @ rows
        out[:, block.part] = ((asked - inside) / floor).float()
    return out


def recall(exact: torch.Tensor, found: torch.Tensor, k: int) -> float:
    """Mean share of the best k [queries, examples]."""
    pairs = zip(exact.topk(k).indices.tolist(), found.topk(k).indices.tolist(), strict=True)
    return sum(len({*a} & {*b}) / k for a, b in pairs) / len(exact)


def recalls(exact: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    return {f"recall@{k}": recall(exact, found, k) for k in (10, 100) if k < exact.shape[1]}


def stored(made: Measured, storage: str) -> tuple[Basis, dict[str, torch.Tensor]]:
    basis = Basis.identity(made.blocks)
    if storage in ("int8", "float16"):
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(made.u), generator=generator)
        basis = Basis.half_whitened(made.blocks, made.u[order[: sample_size(len(made.u))]])
    return basis, encode(made.blocks, basis, made.u, storage)


def scans(
    made: Measured, basis: Basis, kept: dict[str, torch.Tensor], storage: str, args: Any
) -> dict[str, Callable[[], Any]]:
    """A scan with one query and one with 32, to be timed."""
    times = -(-args.rows // len(made.u))
    u, scale = (
        None if kept.get(n) is None else kept[n].repeat(times, 1)[: args.rows]
        for n in ("u", "scale")
    )
    every = list(range(len(made.blocks)))
    found: dict[str, Callable[[], Any]] = {}
    for count in (1, 32):
        w = basis.direction(made.blocks, made.q[:count])
        products = Products(Directions(w, made.blocks, every), storage)
        found[f"scan of {args.rows} rows, {len(w)} queries, seconds"] = partial(
            lambda made: [part.sum() for part in made.rows(u, scale)], products
        )
    return found


def time_in_turn(jobs: dict[tuple[str, str], Callable[[], Any]], rounds: int) -> dict[Any, float]:
    """Best seconds of each job, all jobs once a round."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(rounds + 1):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def account(
    made: Measured, storage: str, exact: dict[str, torch.Tensor], args: Any
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    basis, kept = stored(made, storage)
    held = decode(made.blocks, basis, kept["u"], kept.get("scale"), storage)
    low_rank = stored_rank(storage) is not None
    directions = logra(made.blocks, held if low_rank else made.u, made.q)
    result: dict[str, Any] = {
        "bytes": bytes_per_row(made.blocks, storage),
        "relative error, median": float(
            ((held - made.u).norm(dim=1) / made.u.norm(dim=1).clamp(min=1e-30)).median()
        ),
        "graddot": recalls(exact["graddot"], made.q @ held.T),
        "logra": recalls(exact["logra"], directions @ held.T),
    }
    if low_rank or storage == "float32":
        result["lorif"] = truncated(made, held, exact["logra"], args)
    return result, scans(made, basis, kept, storage, args)


def truncated(made: Measured, held: torch.Tensor, exact: torch.Tensor, args: Any) -> Any:
    """Recall of LoGra's best by LoRIF, for some numbers of eigenpairs."""
    found: dict[str, Any] = {}
    for rank in args.eigenpairs:
        how = Sought(rank, 3, 0)
        start = time.perf_counter()
        pairs = leading_eigenpairs(made.blocks, lambda: iter(held.split(128)), len(held), how)
        seconds = time.perf_counter() - start
        for rest in (True, False):
            m = truncated_inverse(pairs, DAMPING, "", rest=rest)
            scores = m.apply(made.blocks, made.q).float() @ held.T
            name = f"{rank}" if rest else f"{rank}, as in the paper"
            found[name] = recalls(exact, scores) | {"seconds": seconds}
    return found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    task = hw.CausalLM.load(args.model)
    wide, narrow = (measure(task, args, side) for side in (args.wide, args.narrow))
    exact = {
        "graddot": wide.q @ wide.u.T,
        "logra": logra(wide.blocks, wide.u, wide.q) @ wide.u.T,
    }
    jobs = [(args.wide, wide, "float32"), (args.wide, wide, "float16"), (args.wide, wide, "int8")]
    jobs += [(args.wide, wide, f"rank{rank}") for rank in args.ranks]
    jobs += [(args.narrow, narrow, "float32"), (args.narrow, narrow, "int8")]
    jobs += [(args.narrow, narrow, "rank1")]
    table: dict[str, Any] = {}
    timed: dict[tuple[str, str], Callable[[], Any]] = {}
    for side, made, storage in jobs:
        name = f"{side}x{side} {storage}"
        row, own = account(made, storage, exact, args)
        table[name] = row
        timed |= {(name, label): job for label, job in own.items()}
        shown = "  ".join(
            f"{method} " + " ".join(f"{v:.3f}" for v in row[method].values())
            for method in ("graddot", "logra")
        )
        print(f"{name:16} {row['bytes']:9,} bytes  {shown}")
        for rank, values in row.get("lorif", {}).items():
            print(f"    LoRIF {rank:20}  " + " ".join(f"{v:.3f}" for v in values.values()))
    for (name, label), seconds in time_in_turn(timed, args.rounds).items():
        table[name][label] = seconds
        print(f"{name:16} {label} {seconds:.4f}")
    result = {"torch": torch.__version__, "documents": len(wide.u), "queries": len(wide.q)}
    result |= {"model": Path(args.model).name, "threads": args.threads, "storages": table}
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
