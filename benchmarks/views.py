"""TRAK beside traker and LoGra beside dattri: features, and scores of queries, at equal dimension.

    python benchmarks/views.py --model MODEL --corpus FILE.jsonl [--n 64] [--queries 16]
        [--traker VENV/bin/python] [--dattri VENV/bin/python] [--rounds 2] [--json F]

The same model, tokens, threads, precision (float32) and batch, each in a process of its own, in
turn. traker projects the whole gradient densely with its CPU projector onto `--dimension`;
headwater's TRAK row has as many dimensions or a few more, two-sided by module (losses in place of
margins on both sides, which cost the same). dattri's LoGra has 16 x 16 by layer, as headwater's.
`features` is all that is done once for the examples (projecting, curvature), `scores` what the
queries take then.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from methods import run, tokens

PEERS = Path(__file__).parent / "peers"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--traker", help="the python of an environment that has it")
    parser.add_argument("--dattri", help="the python of an environment that has it")
    parser.add_argument("--tokens", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json")
    return parser.parse_args()


def ours(args: argparse.Namespace) -> None:
    """headwater in this process, projected to `--side` on each side; prints its figures."""
    import torch

    import headwater as hw

    torch.set_num_threads(args.threads)
    given = json.loads(Path(args.tokens).read_text())
    task = hw.CausalLM.load(args.model, device="cpu", dtype="float32", max_length=args.length)
    corpus = hw.Corpus.from_documents([{"input_ids": ids} for ids in given["examples"]])
    queries = [hw.Query(input_ids=ids, target=(1, len(ids))) for ids in given["queries"]]
    features = hw.Features(projection=hw.TwoSided(args.side, args.side))
    plan = hw.Plan(budget=args.batch * args.length)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        index = hw.Index.build(Path(folder) / "index", task, corpus, features, plan)
        built = time.perf_counter()
        hw.scores(index, queries, method=hw.LoGra())
        done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = {"features": built - start, "scores": done - built, "peak_bytes": peak}
    print(json.dumps(record | {"dimensions": index.size}))


def side_of(args: argparse.Namespace) -> int:
    """The smallest side of a projection by module that gives at least `--dimension` in all."""
    import headwater as hw
    from headwater.gradients.compute import Gradients

    task = hw.CausalLM.load(args.model, device="cpu", dtype="float32")
    sides = range(1, 65)
    sizes = ((s, Gradients(task, hw.Features(hw.TwoSided(s, s))).layout.size) for s in sides)
    return next(side for side, size in sizes if size >= args.dimension)


def one_round(args: argparse.Namespace, folder: Path, side: int) -> dict[str, Any]:
    data = folder / "tokens.json"
    data.write_text(json.dumps(tokens(args)))
    given = [sys.executable, __file__, "--tokens", str(data)]
    for name in ("model", "corpus", "length", "batch", "threads"):
        given += [f"--{name}", str(getattr(args, name))]
    sizes = [args.model, str(data), str(args.batch), str(args.threads)]
    found: dict[str, Any] = {}
    if args.traker:
        found[f"headwater, {side} x {side}"] = run([*given, "--side", str(side)])
        peer = [args.traker, str(PEERS / "traker_scores.py"), *sizes, str(args.dimension)]
        found["traker"] = run([*peer, str(folder)])
    if args.dattri:
        found["headwater, 16 x 16"] = run([*given, "--side", "16"])
        peer = [args.dattri, str(PEERS / "dattri_scores.py"), *sizes, "256"]
        found["dattri"] = run([*peer, str(folder)])
    return found


def main() -> None:
    args = arguments()
    if args.tokens:
        ours(args)
        return
    side = side_of(args)
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(args, Path(folder), side))
    table = {
        name: {k: statistics.median(one[name][k] for one in rounds) for k in rounds[0][name]}
        for name in rounds[0]
    }
    for name, row in table.items():
        print(
            f"{name:20} features {row['features']:7.2f} s  scores {row['scores']:7.2f} s  "
            f"peak {row['peak_bytes'] / 1e9:5.2f} GB"
        )
    pairs = [("traker", f"headwater, {side} x {side}"), ("dattri", "headwater, 16 x 16")]
    times = {
        peer: {k: table[peer][k] / table[own][k] for k in ("features", "scores", "peak_bytes")}
        for peer, own in pairs
        if peer in table
    }
    for peer, row in times.items():
        print(f"{peer}: " + "  ".join(f"{k} {v:.2f} times" for k, v in row.items()))
    hidden = ("json", "traker", "dattri", "tokens", "side")
    settings = {k: v for k, v in vars(args).items() if k not in hidden}
    settings |= {name: Path(settings[name]).name for name in ("model", "corpus")}
    if args.json:
        record = {"settings": settings, "medians": table, "times": times, "rounds": rounds}
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
