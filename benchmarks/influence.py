"""Every influence method on one fine-tune of a real model: time, memory, disk, and what it finds.

    python benchmarks/influence.py --model MODEL --corpus FILE.jsonl --queries FILE.jsonl
        [--n 96] [--asked 3] [--epochs 2] [--checkpoints 2] [--methods a,b@examples=64] [--json F]

The model is fine-tuned on the corpus's first `--n` texts by headwater's own loop, with checkpoints
and Adam's states saved; times are given relative to that training. Each method then answers all
queries in one call, in a process that has done nothing else but load the model: its time holds
everything it needs besides (features, curvature, further training), with an empty index folder for
it. Times are compared as processor time, which work beside it changes less; the file holds both.
Peak memory is the process's over that call, disk what the index folder has grown by.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

RECIPE: dict[str, Any] = {"batch_size": 8, "schedule": "linear", "dropout": False}
MARGIN = {"trak", "trak-ensemble"}
CONTRAST = {"dda"}
STREAMED = {
    "dda",
    "ekfac",
    "kfac",
    "datainf",
    "arnoldi",
    "mirrored",
    "tracin",
    "source",
    "less",
    "magic",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--n", type=int, default=96)
    parser.add_argument("--asked", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--eps", type=float, default=1e-8)
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--methods", default="trackstar,gradcos,graddot,logra,ekfac,mirrored,bm25")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    parser.add_argument("--add", action="store_true", help="to the rows that FILE has already")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def lines(path: str, count: int) -> list[dict[str, Any]]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(count), strict=False)]


def fine_tune(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train, and keep the checkpoints, the base and the texts in `folder`."""
    import headwater as hw
    from headwater.engine.memory import PeakMemory
    from headwater.training.loop import train
    from headwater.training.recipe import Recipe

    rows = lines(args.corpus, args.n)
    texts = [{"id": str(r.get("id", i)), "text": r["text"]} for i, r in enumerate(rows)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
    task = hw.CausalLM.load(args.model)
    task.model.save_pretrained(folder / "base")
    options = RECIPE | {"epochs": args.epochs, "learning_rate": args.rate, "eps": args.eps}
    recipe = Recipe(**options, checkpoints=args.checkpoints)
    clock, work = time.perf_counter(), time.process_time()
    with PeakMemory(task.device) as peak:
        run = train(task, hw.Corpus.open(folder / "corpus.jsonl"), recipe, out=folder / "run")
    seconds, cpu = time.perf_counter() - clock, time.process_time() - work
    task.model.save_pretrained(folder / "tuned")
    task.tokenizer.save_pretrained(folder / "tuned")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes": peak.bytes,
        "recipe": recipe.to_json(),
        "steps": run.steps,
        "losses": [run.losses[0], run.losses[-1]],
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "tokens": sum(len(task.tokenizer(t["text"])["input_ids"]) for t in texts),
    }


def made_index(args: argparse.Namespace, task: Any, folder: Path, out: Path) -> Any:
    """An index with what the method needs."""
    import headwater as hw
    from headwater.training.run import TrainingRun

    corpus = hw.Corpus.open(folder / "corpus.jsonl")
    name = args.one.split("@")[0]
    run = TrainingRun.open(folder / "run")
    if name in STREAMED | {"bm25"}:
        return hw.Index.build(out, task, corpus, None)
    output = "margin" if name in MARGIN else "loss"
    if name.endswith("-ensemble"):
        index = hw.Index.build(out, task, corpus, None)
        hw.add_checkpoints(index, run, hw.Features(output=output))
        return index
    moment = run.second_moment(task) if name == "trackstar" else None
    projection = hw.TopEigenvectors() if name == "ekfac-view" else hw.TwoSided()
    features = hw.Features(projection=projection, output=output, second_moment=moment)
    return hw.Index.build(out, task, corpus, features)


def one_method(args: argparse.Namespace) -> dict[str, Any]:
    """Run `args.one` in this process."""
    import torch

    import headwater as hw
    from headwater.cli.queries import parse_settings
    from headwater.engine.memory import PeakMemory
    from headwater.evidence.rankers import method_by_name, required, takes
    from headwater.training.run import TrainingRun

    torch.set_num_threads(args.threads)
    folder = Path(args.folder)
    task = hw.CausalLM.load(str(folder / "tuned"))
    rows = lines(args.queries, args.asked)
    queries = [hw.Query(q["prompt"], q["completion"]) for q in rows]
    options: dict[str, Any] = {}
    named, *settings = args.one.split("@")
    options |= parse_settings(settings)
    plain = named.removesuffix("-ensemble")
    if "run" in required(plain):
        options["run"] = TrainingRun.open(folder / "run")
    if takes(plain, "base"):
        options["base"] = folder / "base"
    if plain in CONTRAST:  # the next query's completion stands for the corrected one
        others = [row["completion"] for row in rows[1:] + rows[:1]]
        pairs = zip(rows, others, strict=True)
        queries = [hw.Query(q["prompt"], q["completion"], instead_of=other) for q, other in pairs]
        options["form"] = "gradient"
    with tempfile.TemporaryDirectory() as out:
        clock, work = time.perf_counter(), time.process_time()
        with PeakMemory(task.device) as peak:
            index = made_index(args, task, folder, Path(out) / "index")
            method = method_by_name(named, **options)
            before, prepared = time.perf_counter(), time.process_time()
            scores = hw.scores(index, queries, method=method)
            done, scored = time.perf_counter(), time.process_time()
        parts = Path(out).rglob("*")
        corpus = sum(p.stat().st_size for p in (Path(out) / "index" / "corpus").rglob("*"))
        size = sum(p.stat().st_size for p in parts if p.is_file()) - corpus
        shown = [index.documents([int(row.argmax())])[0] for row in scores]
        return {
            "title": ", ".join([method.title, *settings]),
            "prepared": before - clock,
            "scored": done - before,
            "cpu_prepared": prepared - work,
            "cpu_scored": scored - prepared,
            "peak_bytes": peak.bytes,
            "disk_bytes": size,
            "first": [[d.id, str(d.content.get("text", ""))[:160]] for d in shown],
        }


def again(args: argparse.Namespace, name: str, folder: Path) -> dict[str, Any]:
    """One method in a process of its own."""
    words = [sys.executable, __file__, "--one", name, "--folder", str(folder)]
    for key in ("model", "corpus", "queries", "asked", "threads"):
        words += [f"--{key}", str(getattr(args, key))]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.returncode:
        return {"title": name, "error": ended.stderr.strip().splitlines()[-1:]}
    return json.loads(ended.stdout.splitlines()[-1])


def show(report: dict[str, Any]) -> None:
    print(f"{'':28}{'trainings':>10}{'of it asked':>12}{'peak':>9}{'disk':>9}   first")
    for one in report["methods"].values():
        if "error" in one:
            print(f"{one['title']:28} {one['error']}")
            continue
        base = one["training"]
        total, asked = one["cpu_prepared"] + one["cpu_scored"], one["cpu_scored"]
        ids = ", ".join(name for name, _ in one["first"])
        print(
            f"{one['title']:28}{total / base:10.2f}{asked / base:12.2f}"
            f"{one['peak_bytes'] / 1e9:7.2f} G{one['disk_bytes'] / 1e6:7.1f} M   {ids}"
        )


def main() -> None:
    args = arguments()
    if args.one:
        print(json.dumps(one_method(args)))
        return
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        work: Callable[[], dict[str, Any]] = lambda: fine_tune(args, folder)  # noqa: E731
        held: dict[str, Any] = {}
        if args.json and args.add:
            held = json.loads(Path(args.json).read_text())["methods"]
        report: dict[str, Any] = {"examples": args.n, "training": work(), "methods": held}
        report["queries"] = lines(args.queries, args.asked)
        for name in args.methods.split(","):
            row = again(args, name, folder)
            report["methods"][name] = row | {"training": report["training"]["cpu_seconds"]}
            print(name, "done", file=sys.stderr)
    show(report)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
