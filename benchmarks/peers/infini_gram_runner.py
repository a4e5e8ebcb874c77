"""infini-gram's index and answers on given tokens: its own indexer and engine, timed.

Takes a folder with `tokenized.0` and `offset.0`, and a file with phrases and outputs; its indexer
is called as its own script calls it. Nothing but the calls is timed.
"""

import json
import math
import stat
import statistics
import subprocess
import sys
import time
from pathlib import Path

import infini_gram
from infini_gram.engine import InfiniGramEngine

HACK = 100_000  # bytes that neighbouring parts share, as in its indexing.py


def build(folder: Path, width: int) -> float:
    """Write table.0 by make-part, merge and concat; seconds."""
    program = Path(infini_gram.__file__).parent / "rust_indexing"
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    tokens, parts, merged = folder / "tokenized.0", folder / "parts", folder / "merged"
    size = tokens.stat().st_size
    common = [
        "--ratio",
        str(math.ceil(math.log2(size) / 8)),
        "--token-width",
        str(width),
    ]
    start = time.perf_counter()
    for path in (parts, merged):
        path.mkdir()
    data = ["--data-file", str(tokens)]
    part = ["--parts-dir", str(parts), "--start-byte", "0", "--end-byte", str(size)]
    merge = ["--parts-dir", str(parts), "--merged-dir", str(merged), "--hacksize", str(HACK)]
    concat = ["--merged-dir", str(merged), "--merged-file", str(folder / "table.0")]
    threads = ["--num-threads", "1"]
    for command in (
        ["make-part", *data, *part],
        ["merge", *data, *merge, *threads],
        ["concat", *data, *concat, *threads],
    ):
        subprocess.run([str(program), *command, *common], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def timed(job, rounds: int) -> float:
    """Median seconds of a round, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        job()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    folder = Path(sys.argv[1])
    asked = json.loads(Path(sys.argv[2]).read_text())
    phrases, outputs, rounds = asked["phrases"], asked["outputs"], asked["rounds"]
    seconds = build(folder, asked["width"])
    engine = InfiniGramEngine(
        index_dir=str(folder),
        eos_token_id=0,
        vocab_size=asked["vocabulary"],
        token_dtype=f"u{8 * asked['width']}",
        ds_prefetch_depth=0,  # as its own attribution service sets them
        sa_prefetch_depth=0,
        od_prefetch_depth=0,
    )

    def attribute(output):
        return engine.attribute(output, [], 1, 1 << 62, False)["spans"]

    spans = [[(s["l"], s["r"], s["count"]) for s in attribute(output)] for output in outputs]
    heads = [phrase[:3] for phrase in phrases[:100]]
    counting = timed(lambda: [engine.count(phrase) for phrase in phrases], rounds)
    nexts = timed(lambda: [engine.ntd(head, max_support=1 << 30) for head in heads], rounds)
    times = {
        "build s": seconds,
        "count us": counting / len(phrases) * 1e6,
        "next ms": nexts / len(heads) * 1e3,
        "spans ms": statistics.median(timed(lambda o=o: attribute(o), rounds) for o in outputs[:-1])
        * 1e3,
        "copied ms": timed(lambda: attribute(outputs[-1]), rounds) * 1e3,
    }
    counts = [engine.count(phrase)["count"] for phrase in phrases]
    print(json.dumps({"times": times, "counts": counts, "spans": spans}))


if __name__ == "__main__":
    main()
