"""Index build beside a training step, the floor, the forward pass, and peers, in one run.

    python benchmarks/build.py --model MODEL --corpus FILE.jsonl [--n 512] [--length 128 | --mixed]
        [--rounds 5] [--dtype float32] [--peer bergson=PYTHON] [--peer dattri-llm=PYTHON] [--json F]

MODEL is a folder or `smollm2`; the corpus has a column `text`. Every pass covers the same tokens.
With `--length` each text is cut to exactly that many tokens (shorter ones are left out); with
`--mixed` texts keep their own lengths up to 512. Peers run in their own environments by the files
in benchmarks/peers/, which print their collecting time as JSON; loading models is never timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from loops import Measured, interleaved, run_loop, spread
from stages import timed_build

import headwater as hw
from headwater.gradients.compute import Gradients
from headwater.index.encoding import bytes_per_row

HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--n", type=int, default=512)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--batch", type=int, default=8, help="examples of --length tokens a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--json")
    return parser.parse_args()


def token_lists(task: Any, args: argparse.Namespace) -> list[list[int]]:
    """`n` lists of token ids from the corpus."""
    found: list[list[int]] = []
    with open(args.corpus, encoding="utf-8") as file:
        for line in file:
            ids = task.encoder.texts([json.loads(line)["text"]])[0].ids.tolist()
            if args.mixed and len(ids) > 2:
                found.append(ids[:512])
            elif len(ids) >= args.length:
                found.append(ids[: args.length])
            if len(found) == args.n:
                return found
    raise SystemExit(f"the corpus has only {len(found)} texts that fit, {args.n} were asked for")


def padded_batches(rows: list[list[int]], batch: int) -> list[torch.Tensor]:
    """Batches in the corpus's order, padded to their longest row, as a plain loop makes them."""
    batches = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(map(len, part))
        batches.append(torch.tensor([row + [0] * (longest - len(row)) for row in part]))
    return batches


class Ours:
    """A build to disk; the first round's folder is measured for size."""

    def __init__(self, task: Any, rows: list[list[int]], budget: int, folder: Path) -> None:
        self.task, self.folder, self.budget = task, folder, budget
        self.corpus = hw.Corpus.from_columns({"input_ids": rows})
        self.count = 0
        self.calibration: list[float] = []

    def __call__(self) -> float:
        """Seconds of the shards: gradients, autocorrelation, encoding, writing."""
        self.count += 1
        folder, plan = self.folder / str(self.count), hw.Plan(budget=self.budget)
        seconds = timed_build(folder, self.task, self.corpus, hw.Features(), plan)
        self.calibration.append(seconds["calibrate"])
        return seconds["build_shards"]


def peer_job(name: str, python: str, model: str, data: Path, args: argparse.Namespace) -> Any:
    runner = HERE / "peers" / f"{name.replace('-', '_')}_build.py"
    command = [
        python,
        str(runner),
        model,
        str(data),
        str(args.batch),
        str(args.threads),
        args.dtype,
    ]

    def run() -> float:
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run([*command, out], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
        record = json.loads(done.stdout.strip().splitlines()[-1])
        run.record = record  # type: ignore[attr-defined]
        return record["seconds"]

    return run


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    task = hw.CausalLM.load(args.model, dtype=args.dtype, device="cpu", max_length=512)
    rows = token_lists(task, args)
    tokens = sum(map(len, rows))
    batches = padded_batches(rows, args.batch)
    names = set(Gradients(task, hw.Features()).parameters)
    task.model.eval()

    def loop(mode: str) -> Any:
        def run() -> float:
            with Measured() as measured:
                run_loop(task.model, batches, mode, names)
            return measured.wall

        return run

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "tokens.json"
        data.write_text(json.dumps(rows))
        saved = Path(folder) / "model"
        task.model.save_pretrained(saved)
        task.tokenizer.save_pretrained(saved)
        ours = Ours(task, rows, args.batch * args.length, Path(folder) / "index")
        jobs: dict[str, Any] = {mode: loop(mode) for mode in ("step", "floor", "forward")}
        jobs["headwater"] = ours
        for peer in args.peer:
            name, python = peer.split("=", 1)
            jobs[name] = peer_job(name, python, str(saved), data, args)
        run_loop(task.model, batches[:1], "step", names)  # warm up
        found = interleaved(jobs, args.rounds)
        features = hw.Index.open(Path(folder) / "index" / "1", task)
        size = bytes_per_row(features.blocks, features.features.storage)
    report(args, found, tokens, size, jobs, ours)


def report(
    args: argparse.Namespace,
    found: dict[str, list[float]],
    tokens: int,
    size: int,
    jobs: dict[str, Any],
    ours: Ours,
) -> None:
    floors, steps = found["floor"], found["step"]
    table = []
    for name, seconds in found.items():
        record = getattr(jobs[name], "record", {})
        table.append(
            {
                "name": name,
                "tokens_per_second": tokens / median(seconds),
                "of_step": [a / b for a, b in zip(seconds, steps, strict=True)],
                "of_floor": [a / b for a, b in zip(seconds, floors, strict=True)],
                "bytes_per_example": size if name == "headwater" else record.get("bytes"),
            }
        )
    head = f"{Path(args.model).name}, {args.n} examples, {tokens} tokens"
    print(f"\n{head}, {args.dtype}, {args.threads} threads")
    print(
        f"{'':14} {'tokens/s':>9}  {'of a step':>22}  {'of the floor':>22}  {'bytes/example':>13}"
    )
    for row in table:
        print(
            f"{row['name']:14} {row['tokens_per_second']:9.0f}  {spread(row['of_step']):>22}  "
            f"{spread(row['of_floor']):>22}  {row['bytes_per_example'] or '':>13}"
        )
    print(f"calibration, s: {spread(ours.calibration)}")
    if args.json:
        said = {k: v for k, v in vars(args).items() if k not in ("peer", "json")}
        said |= {k: Path(said[k]).name for k in ("model", "corpus")}
        whole = {
            "arguments": said,
            "tokens": tokens,
            "torch": torch.__version__,
            "calibration_seconds": ours.calibration,
            "rows": table,
        }
        Path(args.json).write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
