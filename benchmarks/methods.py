"""EK-FAC beside kronfluence: factors, scores, memory, and how far the scores agree.

    python benchmarks/methods.py --model MODEL --corpus FILE.jsonl [--n 16] [--queries 16]
        [--kronfluence VENV/bin/python] [--rounds 1] [--json F]

The same model, tokens, threads, precision (float32), batch and damping (0.1 of each layer's mean
eigenvalue), each in a process of its own, in turn. The corpus has `text`; every example and query
is `--length` tokens of it. `--fisher empirical` takes the corpus's labels on both sides, so that
scores can be compared; with `true` each draws its own. kronfluence gets all queries as one batch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

PEER = Path(__file__).parent / "peers" / "kronfluence_scores.py"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--queries", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fisher", default="empirical", choices=("true", "empirical"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kronfluence", help="the python of an environment that has it")
    parser.add_argument("--tokens", help=argparse.SUPPRESS)
    parser.add_argument("--json")
    return parser.parse_args()


def tokens(args: argparse.Namespace) -> dict[str, list[list[int]]]:
    """Examples and queries of exactly `--length` tokens, one from each text that is long enough."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    rows: list[list[int]] = []
    for line in Path(args.corpus).read_text(encoding="utf-8").splitlines():
        ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
        if len(ids) >= args.length:
            rows.append(ids[: args.length])
        if len(rows) == args.n + args.queries:
            return {"examples": rows[: args.n], "queries": rows[args.n :]}
    raise SystemExit(f"the corpus has {len(rows)} texts of {args.length} tokens only")


def ours(args: argparse.Namespace) -> None:
    """Run headwater in this process; prints its figures, and saves the scores."""
    import torch

    import headwater as hw
    from headwater.methods.ekfac import EKFAC

    torch.set_num_threads(args.threads)
    given = json.loads(Path(args.tokens).read_text())
    task = hw.CausalLM.load(args.model, device="cpu", dtype="float32", max_length=args.length)
    corpus = hw.Corpus.from_documents([{"input_ids": ids} for ids in given["examples"]])
    plan = hw.Plan(budget=args.batch * args.length)
    with tempfile.TemporaryDirectory() as folder:
        index = hw.Index.build(Path(folder) / "index", task, corpus, None, plan)
        queries = [hw.Query(input_ids=ids, target=(1, len(ids))) for ids in given["queries"]]
        method = EKFAC(fisher=args.fisher)
        start = time.perf_counter()
        method.factors(index, method.layers(index))
        fitted = time.perf_counter()
        scores = hw.scores(index, queries, method=method)
        done = time.perf_counter()
    np.save(Path(args.tokens).with_name("ours.npy"), scores)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"fit": fitted - start, "scores": done - fitted, "peak_bytes": peak}))


def run(command: list[str]) -> dict[str, float]:
    """A process's last line, as JSON."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def one_round(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    data = folder / "tokens.json"
    data.write_text(json.dumps(tokens(args)))
    given = [sys.executable, __file__, "--tokens", str(data), "--fisher", args.fisher]
    for name in ("model", "corpus", "length", "batch", "threads"):
        given += [f"--{name}", str(getattr(args, name))]
    found: dict[str, Any] = {"headwater": run(given)}
    if args.kronfluence:
        out = folder / "kronfluence"
        sizes = [str(args.batch), str(args.threads), args.fisher]
        peer = [args.kronfluence, str(PEER), args.model, str(data), *sizes, str(out)]
        found["kronfluence"] = run(peer)
        a, b = np.load(folder / "ours.npy"), np.load(out / "scores.npy")
        found["relative_difference"] = float(np.linalg.norm(a - b) / np.linalg.norm(b))
        found["largest_difference"] = float(np.abs(a - b).max() / np.abs(b).max())
    return found


def main() -> None:
    args = arguments()
    if args.tokens:
        ours(args)
        return
    rounds: list[dict[str, Any]] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(args, Path(folder)))
    table: dict[str, Any] = {}
    for name in ("headwater", "kronfluence"):
        held = [one[name] for one in rounds if name in one]
        if held:
            table[name] = {key: statistics.median(h[key] for h in held) for key in held[0]}
            row = table[name]
            print(
                f"{name:12} factors {row['fit']:7.1f} s  scores {row['scores']:7.1f} s  "
                f"peak {row['peak_bytes'] / 1e9:5.2f} GB"
            )
    if "kronfluence" in table:
        ratios = {k: table["kronfluence"][k] / table["headwater"][k] for k in table["headwater"]}
        table["times"] = ratios
        print("  ".join(f"{key} {value:.2f} times" for key, value in ratios.items()))
        print(f"scores differ by {rounds[-1]['relative_difference']:.2e} of their norm")
    settings = {k: v for k, v in vars(args).items() if k not in ("json", "kronfluence", "tokens")}
    settings |= {name: Path(settings[name]).name for name in ("model", "corpus")}
    if args.json:
        record = {"settings": settings, "medians": table, "rounds": rounds}
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
