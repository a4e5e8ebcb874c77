"""The whole job on real facts: build, ask, and see whether the passages that state a fact come up.

    python benchmarks/facts.py --model smollm2 --corpus FILE.jsonl --queries FILE.jsonl
        [--held FILE.jsonl] [--index FOLDER] [--answer FILE] [--json FILE]

The corpus has `id` and `text`; a query has `prompt`, `completion` and `gold`, the ids of the
passages that state it. `--held` are other queries of the same kind, for TrackStar's task Hessian.
With `--index` the index is kept, and a finished one is taken as it is, without build times. BM25
(bm25s) is given the prompt with the completion. The floor is timed on the same model and batches,
on a part of the corpus, before and after the build.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from loops import Measured, run_loop
from stages import timed_build

import headwater as hw
from headwater.corpus.batches import batches_by_length
from headwater.evaluation.retrieval import retrieval
from headwater.gradients.compute import Gradients

BUDGET, FLOOR_TEXTS, DEPTH = 1024, 96, 50


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--held")
    parser.add_argument("--index")
    parser.add_argument("--answer", help="write the first query's answer, as a terminal shows it")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json")
    return parser.parse_args()


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def floor_rate(task: Any, texts: list[str]) -> float:
    """Tokens a second of forward and activation gradients, in batches like the build's."""
    rows = [task.encoder.texts([text])[0].ids.tolist()[: task.max_length] for text in texts]
    batches = []
    for part in batches_by_length([len(row) for row in rows], BUDGET):
        longest = max(len(rows[i]) for i in part)
        batches.append(torch.tensor([rows[i] + [0] * (longest - len(rows[i])) for i in part]))
    with Measured() as measured:
        run_loop(task.model, batches, "floor", set(Gradients(task, hw.Features()).parameters))
    return sum(map(len, rows)) / measured.wall


def build(args: argparse.Namespace, folder: Path, task: Any) -> dict[str, Any]:
    texts = [row["text"] for row in lines(args.corpus)]
    part = texts[:: max(1, len(texts) // FLOOR_TEXTS)]
    floors = [floor_rate(task, part)]
    corpus = hw.Corpus.open(args.corpus)
    seconds = timed_build(folder, task, corpus, hw.Features(), hw.Plan(budget=BUDGET))
    floors.append(floor_rate(task, part))
    size = hw.Index.open(folder, task).manifest["corpus"]
    floor = size["tokens"] / (sum(floors) / 2)
    return {
        "examples": size["documents"],
        "tokens": size["tokens"],
        "seconds": seconds,
        "floor_tokens_per_second": floors,
        "shards_of_floor": seconds["build_shards"] / floor,
        "whole_build_of_floor": seconds["total"] / floor,
    }


def bm25(index: hw.Index, asked: list[dict[str, Any]]) -> list[list[str]]:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stemmer=stemmer, show_progress=False)

    model = bm25s.BM25()
    texts = [document.content["text"] for document in index.documents(range(len(index)))]
    model.index(tokens(texts), show_progress=False)
    whole = [row["prompt"] + row["completion"] for row in asked]
    found, _ = model.retrieve(tokens(whole), k=DEPTH, show_progress=False)
    return [[index.ids[i] for i in row] for row in found.tolist()]


def evaluate(args: argparse.Namespace, index: hw.Index) -> dict[str, Any]:
    asked = lines(args.queries)
    queries = [hw.Query(row["prompt"], row["completion"]) for row in asked]
    gold = [set(row["gold"]) for row in asked]
    methods: dict[str, Any] = {"GradCos": hw.GradCos(), "TrackStar": hw.TrackStar()}
    if args.held:
        held = [hw.Query(row["prompt"], row["completion"]) for row in lines(args.held)]
        methods["TrackStar, mixed"] = hw.TrackStar(eval_queries=held)
    result: dict[str, Any] = {}
    for name in (*methods, "BM25"):
        start = time.perf_counter()
        if name == "BM25":
            ranked = bm25(index, asked)
        else:
            ranked = [top.ids for top in hw.top(index, queries, k=DEPTH, method=methods[name])]
        found = retrieval(ranked, gold)
        result[name] = {
            "mrr": vars(found.mrr),
            "success@10": vars(found.success),
            "seconds": time.perf_counter() - start,
        }
        print(f"{name:18} MRR {found.mrr}  success@10 {found.success}", flush=True)
    return result


def write_answer(path: str, index: hw.Index, query: dict[str, Any]) -> None:
    from rich.console import Console

    from headwater.report.terminal import render

    answer = hw.ask(index, hw.Query(query["prompt"], query["completion"]), top=5)
    with open(path, "w", encoding="utf-8") as file:
        Console(file=file, width=100).print(render(answer))


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.index or Path(temporary) / "index")
        task = hw.CausalLM.load(args.model, device="cpu", max_length=args.max_length)
        record: dict[str, Any] = {"torch": torch.__version__, "threads": args.threads}
        finished = (folder / "manifest.json").exists()
        if not finished:
            record["build"] = build(args, folder, task)
            print(json.dumps(record["build"], indent=1), flush=True)
        index = hw.Index.open(folder, task)
        sizes = [f.stat().st_size for f in folder.rglob("*") if f.is_file()]
        record["index_bytes"] = sum(sizes)
        features = (folder / "features").glob("*")
        record["feature_bytes"] = sum(f.stat().st_size for f in features)
        record["queries"] = len(lines(args.queries))
        record["methods"] = evaluate(args, index)
        if args.answer:
            write_answer(args.answer, index, lines(args.queries)[0])
    if args.json:
        Path(args.json).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
