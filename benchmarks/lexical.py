"""BM25 beside bare bm25s, how both grow over a decade of corpus size, and the dense scan.

    python benchmarks/lexical.py --corpus FILE.jsonl --queries FILE.jsonl [--rounds 5] [--k 100]
        [--sizes 8930,28239,89299] [--encode 512] [--json FILE]

The corpus has `text`, a query `prompt` and `completion`. Both sides get the same texts, stemmer,
stop words and parameters, in turns within each round; ratios are medians of the rounds' own. Ours
reads the texts from the index's files, bm25s has them in memory. A query is words in, the best k
out, one query at a time. `--encode` passages go through the packaged MiniLM; the scan is timed over
vectors of its size for all passages, beside the bare float32 product.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import bm25s
import numpy as np
import Stemmer
import torch

import headwater as hw
from headwater.evidence.encoder import load_encoder
from headwater.evidence.lexical import BM25
from headwater.evidence.semantic import Dense
from headwater.tasks.texts import Texts

QUIET: dict[str, Any] = {"show_progress": False}
WIDTH = 384  # MiniLM's


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--sizes", help="passages, the first so many; a decade when left out")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--encode", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json")
    return parser.parse_args()


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()  # else one side pays for the other's rubbish
    start = time.perf_counter()
    made = job()
    return time.perf_counter() - start, made


class Bare:
    """bm25s by itself, as its own pages show it."""

    def __init__(self, texts: list[str], folder: Path) -> None:
        self.texts, self.folder = texts, folder
        self.stemmer = Stemmer.Stemmer("english")

    def tokens(self, texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self.stemmer, **QUIET)

    def build(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        made = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        made.index(self.tokens(self.texts), **QUIET)
        made.save(self.folder, **QUIET)

    def load(self) -> None:
        self.model = bm25s.BM25.load(self.folder, mmap=True)

    def ask(self, queries: list[str], k: int) -> list[Any]:
        return [self.model.retrieve(self.tokens([q]), k=k, **QUIET).scores[0] for q in queries]


class Ours:
    """BM25 of an index."""

    def __init__(self, rows: list[dict[str, Any]], folder: Path) -> None:
        self.folder = folder
        texts = [{"id": str(i), "text": row["text"]} for i, row in enumerate(rows)]
        self.index = hw.Index.build(folder, Texts(), hw.Corpus.from_documents(texts), None)
        _ = self.index.ids  # read once for any kind of answer

    def build(self) -> None:
        shutil.rmtree(self.folder / "lexical", ignore_errors=True)
        BM25()._opened(self.index)

    def load(self) -> None:
        self.method = BM25()
        self.method._opened(self.index)

    def ask(self, queries: list[str], k: int) -> list[Any]:
        return [self.method.top(self.index, query, k)[1] for query in queries]


def same(ours: list[Any], bare: list[Any]) -> float:
    """Share of queries whose best scores are the same; bm25s fills up with zeros."""
    right = [
        np.allclose(a, b[: len(a)], rtol=1e-4, atol=1e-5) and not b[len(a) :].any()
        for a, b in zip(ours, bare, strict=True)
    ]
    return float(np.mean(right))


def lexical(
    rows: list[dict[str, Any]], queries: list[str], args: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    sides = {
        "bm25s": Bare([row["text"] for row in rows], folder / f"bare{len(rows)}"),
        "headwater": Ours(rows, folder / f"index{len(rows)}"),
    }
    k = min(args.k, len(rows))
    times: dict[str, dict[str, list[float]]] = {
        name: {"build": [], "load": [], "query": []} for name in sides
    }
    answers: dict[str, Any] = {}
    for number in range(args.rounds):
        order = list(sides.items())[:: 1 if number % 2 else -1]
        for what in ("build", "load", "query"):
            for name, side in order:
                if what == "query":
                    seconds, answers[name] = timed(lambda s=side: s.ask(queries, k))
                    seconds /= len(queries)
                else:
                    seconds, _ = timed(getattr(side, what))
                times[name][what].append(seconds)
    made: dict[str, Any] = {"passages": len(rows)}
    for what in ("build", "load", "query"):
        pair = [times[name][what] for name in ("headwater", "bm25s")]
        ratios = [a / b for a, b in zip(*pair, strict=True)]
        made[what] = {
            "headwater": median(pair[0]),
            "bm25s": median(pair[1]),
            "ratio": median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
        }
    made["same_scores"] = same(answers["headwater"], answers["bm25s"])
    return made


class Noise:
    """An encoder of MiniLM's size that costs nothing: only the scan is timed."""

    def describe(self) -> dict[str, Any]:
        return {"encoder": "noise"}

    def encode(self, texts: Any, *, query: bool) -> Any:
        rows = np.random.default_rng(len(texts)).normal(size=(len(texts), WIDTH))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def dense(rows: list[dict[str, Any]], args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    encoder, texts = load_encoder(), [row["text"] for row in rows[: args.encode]]
    encoder.encode(texts[:8], query=False)
    seconds, _ = timed(lambda: encoder.encode(texts, query=False))
    index, method = hw.Index.open(folder / f"index{len(rows)}"), Dense(Noise())
    method.top(index, "words", args.k)
    u = np.concatenate(list(method._opened(index).groups()))
    q = torch.from_numpy(Noise().encode(["words"], query=True)[0])
    wide = torch.from_numpy(u)
    pairs = [
        (
            timed(lambda: method.top(index, "words", args.k))[0],
            timed(lambda: torch.topk(wide @ q, min(args.k, len(wide))))[0],
        )
        for _ in range(max(5, args.rounds))
    ]
    return {
        "encode_passages_per_second": len(texts) / seconds,
        "scan_seconds": median(pair[0] for pair in pairs),
        "bare_float32_seconds": median(pair[1] for pair in pairs),
        "passages": len(rows),
    }


def show(row: dict[str, Any], first: dict[str, Any]) -> None:
    grown = row["passages"] / first["passages"]
    parts = [f"{row['passages']:8,}"]
    for what, unit, scale in (("build", "s", 1), ("load", "ms", 1e3), ("query", "ms", 1e3)):
        m = row[what]
        parts.append(
            f"{what} {m['headwater'] * scale:8.3f} / {m['bm25s'] * scale:8.3f} {unit}"
            f" = {m['ratio']:.2f} ({m['lowest']:.2f}-{m['highest']:.2f})"
        )
    per_passage = row["build"]["headwater"] / first["build"]["headwater"] / grown
    parts.append(f"build a passage, of smallest {per_passage:.2f}")
    parts.append(f"same scores {row['same_scores']:.0%}")
    print("  ".join(parts))


def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    rows, queries = lines(args.corpus), lines(args.queries)
    texts = [query["prompt"] + query["completion"] for query in queries]
    decade = [len(rows) // 10, round(len(rows) / 10**0.5), len(rows)]
    sizes = [int(size) for size in args.sizes.split(",")] if args.sizes else decade
    table: list[dict[str, Any]] = []
    print(f"headwater / bm25s, medians of {args.rounds} rounds, {len(texts)} queries, k {args.k}")
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            table.append(lexical(rows[:size], texts, args, Path(name)))
            show(table[-1], table[0])
        found = dense(rows[: sizes[-1]], args, Path(name))
    print(
        f"MiniLM {found['encode_passages_per_second']:.1f} passages/s; scan of "
        f"{found['passages']:,} x {WIDTH} (fp16) and the best {args.k}: "
        f"{found['scan_seconds'] * 1e3:.2f} ms; bare float32 product and topk "
        f"{found['bare_float32_seconds'] * 1e3:.2f} ms"
    )
    if args.json:
        said = {
            "rounds": args.rounds,
            "k": args.k,
            "threads": args.threads,
            "bm25s": bm25s.__version__,
        }
        made = {**said, "lexical": table, "dense": found}
        Path(args.json).write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
