"""Peak memory of a build beside the floor loop, each in a process of its own.

    python benchmarks/memory.py --model MODEL --corpus FILE.jsonl [--n 128] [--json F]

Peak resident memory (`ru_maxrss`) of a process that loads the model and runs one loop over the same
tokens. The build's buffers are told apart: a shard's encoded features, the running autocorrelation,
and the calibration sample's float features.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

LOOPS = ("load", "forward", "floor", "step", "headwater")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--n", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loop", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--json")
    return parser.parse_args()


def one(args: argparse.Namespace) -> dict[str, Any]:
    """Run one loop in this process and say what it took."""
    import torch
    from build import padded_batches, token_lists
    from loops import run_loop

    import headwater as hw
    from headwater.gradients.compute import Gradients
    from headwater.index.calibration import sample_size
    from headwater.index.encoding import bytes_per_row

    torch.set_num_threads(args.threads)
    task = hw.CausalLM.load(args.model, device="cpu", max_length=512)
    task.model.eval()
    args.mixed = False
    rows = token_lists(task, args)
    said: dict[str, Any] = {}
    gradients = Gradients(task, hw.Features())
    if args.loop == "headwater":
        with tempfile.TemporaryDirectory() as folder:
            plan = hw.Plan(budget=args.batch * args.length)
            corpus = hw.Corpus.from_columns({"input_ids": rows})
            hw.Index.build(Path(folder) / "index", task, corpus, hw.Features(), plan)
        blocks = gradients.layout.blocks
        said["shard_mb"] = args.n * bytes_per_row(blocks, "int8") / 2**20
        said["autocorrelation_mb"] = sum(8 * b.size**2 for b in blocks) / 2**20
        said["sample_mb"] = 4 * gradients.layout.size * sample_size(args.n) / 2**20
    elif args.loop != "load":
        run_loop(task.model, padded_batches(rows, args.batch), args.loop, set(gradients.parameters))
    return said | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    args = arguments()
    if args.loop:
        print(json.dumps(one(args)))
        return
    found: dict[str, dict[str, Any]] = {}
    given = [word for word in sys.argv[1:] if word not in ("--json", args.json)]
    for loop in LOOPS:
        command = [sys.executable, __file__, *given, "--loop", loop]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{loop} failed:\n{done.stderr[-2000:]}")
        found[loop] = json.loads(done.stdout.strip().splitlines()[-1])
    for loop, row in found.items():
        row["of_floor"] = row["peak_mb"] / found["floor"]["peak_mb"]
        rest = "  ".join(f"{k} {v:.0f}" for k, v in row.items() if k not in ("peak_mb", "of_floor"))
        print(f"{loop:10} {row['peak_mb']:8.0f} MB  {row['of_floor']:.3f} of the floor  {rest}")
    if args.json:
        said = {"model": Path(args.model).name, "n": args.n, "length": args.length}
        Path(args.json).write_text(json.dumps(said | {"loops": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
