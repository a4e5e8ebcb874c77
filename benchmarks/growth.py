"""Whether cost grows linearly: builds over a decade of examples, and over a decade of tokens.

    python benchmarks/growth.py --model MODEL --corpus FILE.jsonl [--rounds 3] [--json FILE]

One series has 400, 1,265 and 4,000 examples of 32 tokens, the other 400 examples of 32, 101 and 320
tokens, all cut from the corpus's texts laid end to end. A row is the seconds of the shards for a
thousand tokens (1.00: as at the smallest of the series); calibration and the final merge are told
apart, with calibration's share of a build of 100,000 such examples.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from stages import timed_build

import headwater as hw
from headwater.index.calibration import sample_size

SIZES = {"examples": [(400, 32), (1265, 32), (4000, 32)], "tokens": [(400, 101), (400, 320)]}
MANY = 100_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    return parser.parse_args()


def cut(task: Any, path: str, count: int, length: int) -> list[list[int]]:
    """`count` lists of exactly `length` tokens."""

    def tokens() -> Any:
        with open(path, encoding="utf-8") as file:
            for line in itertools.cycle(file.readlines()):
                yield from task.encoder.texts([json.loads(line)["text"]])[0].ids.tolist()

    endless = tokens()
    return [list(itertools.islice(endless, length)) for _ in range(count)]


def measure(task: Any, rows: list[list[int]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        corpus = hw.Corpus.from_columns({"input_ids": rows})
        plan = hw.Plan(budget=1024)
        return timed_build(Path(folder) / "index", task, corpus, hw.Features(), plan)


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    task = hw.CausalLM.load(args.model, device="cpu", max_length=512)
    sizes = list(dict.fromkeys(size for series in SIZES.values() for size in series))
    data = {size: cut(task, args.corpus, *size) for size in sizes}
    found: dict[tuple[int, int], list[dict[str, float]]] = {size: [] for size in sizes}
    measure(task, data[sizes[0]])  # warm up
    for number in range(args.rounds):
        for size in sizes:
            found[size].append(measure(task, data[size]))
            said = found[size][-1]
            print(f"round {number + 1}  {size[0]:6} x {size[1]:4}  {said['build_shards']:8.2f} s")
    table = []
    for count, length in sizes:
        runs = found[count, length]
        per_token = [run["build_shards"] / (count * length) for run in runs]
        first = [run["build_shards"] / (sizes[0][0] * sizes[0][1]) for run in found[sizes[0]]]
        calibration = median(run["calibrate"] for run in runs) / sample_size(count)
        whole = MANY * length * median(per_token)
        table.append(
            {
                "examples": count,
                "tokens": length,
                "ms_per_thousand_tokens": 1e6 * median(per_token),
                "of_smallest": [a / b for a, b in zip(per_token, first, strict=True)],
                "merge_seconds": median(run["finish"] for run in runs),
                "calibration_seconds": median(run["calibrate"] for run in runs),
                "calibration_share_at_100k": calibration * sample_size(MANY) / whole,
            }
        )
        row = table[-1]
        spread = f"({min(row['of_smallest']):.2f}-{max(row['of_smallest']):.2f})"
        print(
            f"{count:6} x {length:4}  {row['ms_per_thousand_tokens']:8.1f} ms/1k tokens  "
            f"{median(row['of_smallest']):.2f} {spread}  merge {row['merge_seconds']:.2f} s  "
            f"calibration at {MANY:,}: {row['calibration_share_at_100k']:.2%}"
        )
    if args.json:
        said = {"model": Path(args.model).name, "rounds": args.rounds, "threads": args.threads}
        Path(args.json).write_text(json.dumps(said | {"rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
