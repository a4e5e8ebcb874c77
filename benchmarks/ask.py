"""What `ask` takes on a warm index for evidence that needs no gradients, and that torch stays out.

    python benchmarks/ask.py --index INDEX --queries FILE.jsonl [--count 100] [--rounds 3]

The index holds texts (`headwater index - CORPUS OUT --no-features`); a query has `prompt` and
`completion`. Each round asks all queries, kind by kind and together, after one question that opens
the files. Times are of the whole call: search, spans, ranking, support, the joined answer.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import headwater as hw

KINDS = (("lexical",), ("verbatim",), ("lexical", "verbatim"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    return parser.parse_args()


def times(index: hw.Index, queries: list[hw.Query], kinds: tuple[str, ...]) -> list[float]:
    """Seconds of each question."""
    found: list[float] = []
    for query in queries:
        started = time.perf_counter()
        hw.ask(index, query, evidence=kinds, top=10)
        found.append(time.perf_counter() - started)
    return found


def main() -> None:
    args = arguments()
    index = hw.Index.open(args.index)
    rows = [json.loads(line) for line in Path(args.queries).read_text().splitlines()]
    queries = [hw.Query(r["prompt"], r["completion"]) for r in rows[: args.count]]
    table: dict[str, Any] = {}
    for kinds in KINDS:
        hw.ask(index, queries[0], evidence=kinds)
    for kinds in KINDS:
        rounds = [times(index, queries, kinds) for _ in range(args.rounds)]
        every = sorted(value for held in rounds for value in held)
        row = {
            "median_ms": statistics.median(every) * 1e3,
            "p95_ms": every[int(0.95 * (len(every) - 1))] * 1e3,
            "medians_of_rounds_ms": [statistics.median(held) * 1e3 for held in rounds],
        }
        table[" + ".join(kinds)] = row
        print(f"{' + '.join(kinds):20} {row['median_ms']:6.1f} ms, 95 %: {row['p95_ms']:6.1f} ms")
    result = {
        "passages": len(index),
        "queries": len(queries),
        "rounds": args.rounds,
        "torch_imported": "torch" in sys.modules,
        "kinds": table,
    }
    print(f"{len(index):,} passages; torch imported: {result['torch_imported']}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
