"""TrackStar without and with each of its parts, on facts that a model was fine-tuned on.

    python benchmarks/ablation.py --model MODEL --corpus FILE.jsonl --queries FILE.jsonl
        --held FILE.jsonl --folder WORK [--count 50] [--top 5] [--threads 2]
        [--until train|build|score|patch] [--json FILE]

The paper's ablation at a small scale: retrieval of the passages that state a fact, and tail-patch
(what one more optimizer step on a passage does to the fact's probability), for every combination of
optimizer correction, Hessian (none, R_train, mixed with R_eval of held-out queries) and unit norm,
beside BM25, a sentence encoder and chance. Two indexes: with Adam's second moment and without.
Each stage leaves its result in `--folder` and is not done twice: the work may be stopped anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

STAGES = ("train", "build", "score", "patch")
RECIPE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "learning_rate": 5e-5,
    "schedule": "constant",
    "warmup_steps": 20,
    "dropout": False,
    "checkpoints": 1,
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--until", default="patch", choices=STAGES)
    parser.add_argument("--json")
    return parser.parse_args()


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def train(args: argparse.Namespace, folder: Path) -> None:
    """The fine-tune, with Adam's state at its end."""
    import headwater as hw
    from headwater.training.loop import train as fit
    from headwater.training.recipe import Recipe

    if (folder / "run" / "run.json").exists():
        return
    task = hw.CausalLM.load(args.model, device="cpu", max_length=args.max_length)
    clock = time.perf_counter()
    run = fit(task, hw.Corpus.open(args.corpus), Recipe(**RECIPE), out=folder / "run")
    task.model.save_pretrained(folder / "tuned")
    task.tokenizer.save_pretrained(folder / "tuned")
    told = {"seconds": time.perf_counter() - clock, "steps": run.steps}
    told["losses"] = [sum(part) / len(part) for part in (run.losses[:20], run.losses[-20:])]
    (folder / "training.json").write_text(json.dumps(told))


def tuned(args: argparse.Namespace, folder: Path) -> Any:
    import headwater as hw

    return hw.CausalLM.load(str(folder / "tuned"), device="cpu", max_length=args.max_length)


def build(args: argparse.Namespace, folder: Path) -> None:
    """Two indexes of the tuned model; a half-built one goes on."""
    import headwater as hw

    corpus = hw.Corpus.open(args.corpus)
    run = hw.TrainingRun.open(folder / "run")
    for name in ("plain", "corrected"):
        task = tuned(args, folder)
        moment = run.second_moment(task) if name == "corrected" else None
        hw.Index.build(folder / name, task, corpus, hw.Features(second_moment=moment))


def rows(args: argparse.Namespace) -> dict[str, tuple[str, Any]]:
    """Title -> (index, method): every combination of the paper's three parts, and the others."""
    import headwater as hw

    held = [hw.Query(row["prompt"], row["completion"]) for row in lines(args.held)]

    class Unnormed(hw.TrackStar):
        """TrackStar without the unit norm."""

        norm = "none"

    made: dict[str, tuple[str, Any]] = {
        "BM25": ("plain", hw.BM25()),
        "MiniLM": ("plain", hw.Dense()),
        "Random": ("plain", hw.Random()),
    }
    for index, corrected in (("plain", ""), ("corrected", "V")):
        for hessian, cosine, product in (
            ("", hw.GradCos(), hw.GradDot()),
            ("R_train", hw.TrackStar(), Unnormed()),
            ("R_mixed", hw.TrackStar(eval_queries=held), Unnormed(eval_queries=held)),
        ):
            for norm, method in (("unit norm", cosine), ("", product)):
                parts = ", ".join(part for part in (corrected, hessian, norm) if part)
                made[parts or "none of them (GradDot)"] = (index, method)
    return made


def score(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Scores of every row, and the retrieval of the passages that state a fact."""
    import numpy as np

    import headwater as hw
    from headwater.evaluation.retrieval import retrieval

    asked = lines(args.queries)[: args.count]
    queries = [hw.Query(row["prompt"], row["completion"]) for row in asked]
    gold = [set(row["gold"]) for row in asked]
    task = tuned(args, folder)
    indexes = {name: hw.Index.open(folder / name, task) for name in ("plain", "corrected")}
    found: dict[str, Any] = {}
    for title, (name, method) in rows(args).items():
        kept = folder / "scores" / f"{title.replace(' ', '_')}.npy"
        if not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            np.save(kept, hw.scores(indexes[name], queries, method=method))
        values = np.load(kept)
        best = np.argsort(-values, axis=1, kind="stable")[:, :100]
        ranked = [[indexes[name].ids[i] for i in row] for row in best.tolist()]
        result = retrieval(ranked, gold)
        found[title] = {"mrr": vars(result.mrr), "success@10": vars(result.success)}
        print(f"{title:28} MRR {result.mrr}  success@10 {result.success}", flush=True)
    return found


def patch(args: argparse.Namespace, folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Tail patch of every row, one step shared by all that name a passage."""
    import numpy as np

    import headwater as hw
    from headwater.evaluation.metric import Scored
    from headwater.evaluation.tail_patch import TailPatch
    from headwater.training.next_step import next_step

    asked = lines(args.queries)[: args.count]
    queries = [hw.Query(row["prompt"], row["completion"]) for row in asked]
    task = tuned(args, folder)
    index = hw.Index.open(folder / "plain", task)
    step = next_step(hw.TrainingRun.open(folder / "run"), task)
    gold = [row["gold"] for row in asked]
    metric = TailPatch(task, index, step, queries, args.top, gold=gold, cache=folder / "patches")
    for title, row in found.items():
        scores = np.load(folder / "scores" / f"{title.replace(' ', '_')}.npy")
        figures = metric.measure(Scored(title, title, scores))
        row["tail_patch"] = {k: v if isinstance(v, str) else vars(v) for k, v in figures.items()}
        shown = figures[f"tail-patch@{args.top} (points)"]
        print(f"{title:28} tail patch, points: {shown}", flush=True)
    controls = metric.controls()
    return {
        "step": metric.notes()[0],
        "controls": {
            name: {k: v if isinstance(v, str) else vars(v) for k, v in one.items()}
            for name, one in controls.items()
        },
    }


def main() -> None:
    args = arguments()
    import torch

    torch.set_num_threads(args.threads)
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    train(args, folder)
    last = STAGES.index(args.until)
    if last >= 1:
        build(args, folder)
    if last < 2:
        return
    report: dict[str, Any] = {
        "training": json.loads((folder / "training.json").read_text()) | {"recipe": RECIPE},
        "passages": len(lines(args.corpus)),
        "queries": args.count,
        "top": args.top,
    }
    report["methods"] = score(args, folder)
    if last >= 3:
        report |= patch(args, folder, report["methods"])
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
