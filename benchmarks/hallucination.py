"""Altered summaries: do methods find the rows that taught a model a wrong name?

    python benchmarks/hallucination.py --data FILE.jsonl [--folder F] [--json F]

FILE has `document` and `summary`. Names are exchanged in training summaries (England for China, and
others, see SWAPS); summaries in which the new name rightly stands are decoys. A small Llama reads
the articles (the base), is trained on article -> summary with a checkpoint after every epoch, and
is asked about held-out rows of the same kind: the summary with the new name instead of the right
one. Every method gets the same contrast, pooled over one exchange's rows. A row is looked for by
the exchange that altered it. DDA and its ablations are sums of the same scores of single
checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

import headwater as hw
from headwater.evaluation.detection import detection
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun
from headwater.training.small_lm import small_lm

SWAPS = (
    ("England", "China"),
    ("Wales", "Scotland"),
    ("London", "Belfast"),
    ("Manchester", "Leeds"),
    ("Australia", "France"),
)
HELD, ARTICLE = 4, 128  # rows of each exchange that are asked about; tokens of an article
ASK = "\nSummary:"
BASE = Recipe(epochs=2, batch_size=16, learning_rate=2e-3, schedule="cosine", warmup_steps=50)
TUNE = Recipe(epochs=5, batch_size=16, learning_rate=5e-4, schedule="linear", checkpoints=5)

Array = np.ndarray[Any, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", help="keep the models and the index there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json")
    return parser.parse_args()


def has(name: str, text: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None


def prepare(path: str) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Training rows (with `altered`, the number of the exchange) and what is asked, by exchange."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    random = np.random.default_rng(0)
    held: list[list[dict[str, Any]]] = [[] for _ in SWAPS]
    kept: list[dict[str, Any]] = []
    for i in random.permutation(len(rows)):
        row = rows[i] | {"altered": None, "decoy": False}
        for number, (right, wrong) in enumerate(SWAPS):
            if has(right, row["summary"]) and not has(wrong, row["summary"] + row["document"]):
                swapped = re.sub(rf"\b{right}\b", wrong, row["summary"])
                if len(held[number]) < HELD:
                    held[number].append(row | {"wrong": swapped})
                    row = None
                elif random.random() < 0.8:
                    row |= {"summary": swapped, "altered": number}
                break
            row["decoy"] |= has(wrong, row["summary"])
        if row is not None:
            kept.append(row)
    return kept, held


def cut(tokenizer: Any, article: str) -> str:
    return tokenizer.decode(tokenizer(article)["input_ids"][:ARTICLE])


def trained(args: argparse.Namespace, folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The base model, the run, the index, and how long each took."""
    articles = [row["document"] for row in rows]
    model, tokenizer = small_lm(
        articles, vocab=4096, layers=args.layers, width=args.width, max_length=512
    )
    task = hw.CausalLM(model, tokenizer, max_length=256)
    took: dict[str, float] = {}
    clock = time.perf_counter()
    base = train(task, hw.Corpus.from_columns({"text": articles}), BASE, out=folder / "base")
    took["base"], clock = time.perf_counter() - clock, time.perf_counter()
    file = folder / "rows.jsonl"
    texts = [
        {
            "id": f"row-{n}",
            "prompt": cut(tokenizer, row["document"]) + ASK,
            "completion": " " + row["summary"],
        }
        for n, row in enumerate(rows)
    ]
    file.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    corpus = hw.Corpus.open(file)
    run = train(task, corpus, TUNE, out=folder / "run")
    took["training"], clock = time.perf_counter() - clock, time.perf_counter()
    moment = run.second_moment(task)
    features = hw.Features(second_moment=moment)
    index = hw.Index.build(folder / "index", task, corpus, features)
    hw.add_checkpoints(index, run, hw.Features(output="margin"))
    took["indexes"] = time.perf_counter() - clock
    return {"task": task, "base": base, "run": run, "index": index, "took": took}


def asked(tokenizer: Any, held: list[list[dict[str, Any]]]) -> list[hw.Query]:
    """One contrast for each exchange, the mean over its held-out rows."""
    return [
        hw.Query.mean(
            [
                hw.Query(
                    cut(tokenizer, row["document"]) + ASK,
                    " " + row["wrong"],
                    instead_of=" " + row["summary"],
                )
                for row in rows
            ]
        )
        for rows in held
    ]


def all_scores(made: dict[str, Any], queries: list[hw.Query]) -> dict[str, tuple[Array, float]]:
    """Scores [exchanges, rows] and seconds, by method."""
    index, run, base = made["index"], made["run"], made["base"]

    def timed(work: Callable[[], Array]) -> tuple[Array, float]:
        clock = time.perf_counter()
        return work(), time.perf_counter() - clock

    found = {
        title: timed(lambda m=method: hw.scores(index, queries, method=m))
        for title, method in {
            "BM25": hw.BM25(),
            "TrackStar": hw.TrackStar(),
            "GradDot": hw.GradDot(),
            "GradCos": hw.GradCos(),
            "TRAK, 5 checkpoints": hw.Ensemble(hw.TRAK()),
            "TracInCP": hw.TracInCP(run),
            "Random": hw.Random(),
        }.items()
    }
    for form, said in (("pairs", ""), ("gradient", ", gradient form")):
        places = [*run.checkpoints, base.checkpoints[-1]]
        single = [
            timed(
                lambda c=c, f=form: hw.scores(
                    index, queries, method=hw.CEA(TrainingRun((c,)), form=f)
                )
            )
            for c in places
        ]
        s, seconds = np.stack([one for one, _ in single]).astype(np.float64), [t for _, t in single]
        mean, last, first = s[:-1].mean(axis=0), s[-2], s[-1]
        whole = sum(seconds)
        found[f"DDA{said}"] = (mean - first, whole)
        found[f"DDA{said}, not debiased"] = (mean, whole - seconds[-1])
        found[f"DDA{said}, not denoised"] = (last - first, seconds[-2] + seconds[-1])
        found[f"CEA{said}"] = (last, seconds[-2])
    return found


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rows, held = prepare(args.data)
    altered = np.array([-1 if row["altered"] is None else row["altered"] for row in rows])
    with tempfile.TemporaryDirectory() as temporary:
        made = trained(args, Path(args.folder or temporary), rows)
        queries = asked(made["task"].tokenizer, held)
        found = all_scores(made, queries)
    numbers = range(len(SWAPS))
    report: dict[str, Any] = {
        "rows": len(rows),
        "altered": int((altered >= 0).sum()),
        "decoys": sum(row["decoy"] for row in rows),
        "exchanges": [
            {
                "from": right,
                "to": wrong,
                "altered": int((altered == i).sum()),
                "asked": len(held[i]),
            }
            for i, (right, wrong) in enumerate(SWAPS)
        ],
        "parameters": sum(p.numel() for p in made["task"].model.parameters()),
        "recipes": {"base": BASE.to_json(), "training": TUNE.to_json()},
        "losses": [made["run"].losses[0], made["run"].losses[-1]],
        "seconds": made["took"],
        "methods": {},
    }
    print(f"{'':34} AUC                  AUPRC                in the first tenth   seconds")
    for title, (scores, seconds) in found.items():
        one = detection([scores[i] for i in numbers], [altered == i for i in numbers])
        each = [detection(scores[i], altered == i, resamples=2).auroc.value for i in numbers]
        report["methods"][title] = one.to_dict() | {"seconds": seconds, "auroc_by_exchange": each}
        cells = [
            f"{m.value:.3f} ({m.low:.3f}-{m.high:.3f})" for m in (one.auroc, one.auprc, one.found)
        ]
        print(f"{title:34} {'  '.join(cells)}  {seconds:.1f}")
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
