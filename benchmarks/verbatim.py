"""Verbatim search: the suffix array beside bare pydivsufsort, look-ups, growth, and infini-gram.

    python benchmarks/verbatim.py [--tokens 10_000_000] [--rounds 3] [--json FILE]
        [--corpus FILE.jsonl --tokenizer NAME] [--infini-gram VENV/bin/python]

Every column is one size of corpus, over a decade up to `--tokens`. The tokens are random by Zipf's
law (50,000 kinds, documents of 20 to 600 tokens, a tenth of them copied from earlier ones), or the
texts of a corpus, shuffled and repeated. Builds: ours reads and writes files, the bare call has its
array in memory; both once a round. Phrases of 8 tokens stand in the corpus; an output of 512 tokens
is pieces of documents of 1 to 40 tokens, or (copied) the start of the longest document as it is.
infini-gram's own indexing and engine run in an environment of theirs on the same tokens; all counts
and spans must be equal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from headwater.evidence.phrases import Characters, PhraseIndex, Shard
from headwater.evidence.spans import Tracing, maximal_spans
from headwater.evidence.suffix_array import (
    SortedSuffixes,
    WholePointers,
    map_file,
    separator_of,
    write_suffix_array,
)
from headwater.evidence.token_store import token_type
from headwater.evidence.tokenizer import TextTokenizer, named_tokenizer

KINDS, PHRASES, LENGTH, OUTPUTS = 50_000, 1000, 8, 5
ANY = Tracing(whole_words=False, sentences=False)  # as infini-gram is asked, too


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus")
    parser.add_argument("--tokenizer")
    parser.add_argument("--infini-gram", dest="peer")
    parser.add_argument("--json")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


# -- the tokens -----------------------------------------------------------------------------------


def random_documents(size: int, rng: np.random.Generator) -> list[np.ndarray[Any, Any]]:
    made: list[np.ndarray[Any, Any]] = []
    left = size
    while left > 0:
        length = int(rng.integers(20, 600))
        ids = (rng.zipf(1.2, length) - 1) % KINDS
        if made and rng.random() < 0.1:
            source = made[int(rng.integers(len(made)))]
            ids[: len(source)] = source[: len(ids)]
        made.append(ids[:left])
        left -= length
    return made


def corpus_documents(
    path: str, tokenizer: TextTokenizer, size: int, rng: np.random.Generator
) -> list[np.ndarray[Any, Any]]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    texts = tokenizer.encode_many([json.loads(line)["text"] for line in lines])
    made: list[np.ndarray[Any, Any]] = []
    left = size
    while left > 0:
        for number in rng.permutation(len(texts)).tolist():
            made.append(texts[number][:left])
            left -= len(texts[number])
            if left <= 0:
                break
    return made


def any_tokenizer() -> TextTokenizer:
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(KINDS)}, "none"))
    return TextTokenizer.from_json(raw.to_str(), "zipf")


class Bare(PhraseIndex):
    """A corpus of tokens alone."""

    unigrams = np.zeros(0, dtype=np.int64)

    def source(self, position: int) -> tuple[str, dict[str, Any]]:
        return str(position), {}

    def characters(self, position: int) -> Characters:
        raise LookupError(f"document {position} is tokens alone: it has no characters")


def write(documents: list[np.ndarray[Any, Any]], folder: Path, dtype: np.dtype[Any]) -> np.ndarray:
    separator = np.array([separator_of(dtype)])
    parts = [part for ids in documents for part in (separator, ids)]
    text = np.concatenate([*parts, separator]).astype(dtype)
    text.tofile(folder / "tokens")
    return text


def opened(folder: Path, documents: list[Any], tokenizer: TextTokenizer) -> Bare:
    dtype = token_type(tokenizer.vocabulary)
    pointers = WholePointers(map_file(folder / "array"), dtype.itemsize, 4)
    suffixes = SortedSuffixes(map_file(folder / "tokens"), pointers, dtype)
    lengths = np.array([len(ids) + 1 for ids in documents])
    shard = Shard(suffixes, 0, np.cumsum(lengths) - lengths, int(lengths.sum()))
    return Bare(tokenizer, [shard])


# -- measuring ------------------------------------------------------------------------------------


def seconds(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def builds(folder: Path, text: np.ndarray, rounds: int) -> dict[str, float]:
    from pydivsufsort import divsufsort

    native = text.astype(f"u{text.itemsize}")
    jobs = {
        "ours": lambda: write_suffix_array(folder / "tokens", text.itemsize, folder / "array"),
        "bare": lambda: divsufsort(native),
    }
    times = [{name: seconds(job) for name, job in jobs.items()} for _ in range(rounds)]
    assert (np.fromfile(folder / "array", dtype="<i4") == divsufsort(native)).all()
    ratios = sorted(row["bare"] / row["ours"] for row in times)
    command = [sys.executable, __file__, "--child", str(folder / "tokens"), str(text.itemsize)]
    child = subprocess.run(
        [*command, str(folder / "again")], capture_output=True, text=True, check=True
    )
    return {
        "build s": min(row["ours"] for row in times),
        "bare s": min(row["bare"] for row in times),
        "of bare": median(ratios),
        "of bare, least": ratios[0],
        "of bare, most": ratios[-1],
        "RSS bytes/token": float(child.stdout) / len(text),
    }


def child(tokens: str, width: str, out: str) -> None:
    """The peak of memory that sorting adds, in a process of its own (Linux)."""
    import pydivsufsort  # noqa: F401 - loaded before the start is looked at

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    write_suffix_array(Path(tokens), int(width), Path(out))
    print(status("VmHWM") - before)


def questions(
    documents: list[np.ndarray[Any, Any]], rng: np.random.Generator
) -> tuple[list[list[int]], list[list[int]]]:
    """Phrases, and outputs of 512 tokens: pieces of documents, the last one from one alone."""
    long = [ids for ids in documents if len(ids) >= 40]

    def piece(length: int) -> list[int]:
        ids = long[int(rng.integers(len(long)))]
        start = int(rng.integers(len(ids) - min(length, len(ids)) + 1))
        return ids[start : start + length].tolist()

    phrases = [piece(LENGTH) for _ in range(PHRASES)]
    outputs: list[list[int]] = []
    for _ in range(OUTPUTS - 1):
        output: list[int] = []
        while len(output) < 512:
            output += piece(int(rng.integers(1, 40)))
        outputs.append(output[:512])
    outputs.append(max(documents, key=len)[:512].tolist())
    return phrases, outputs


def look_ups(
    index: Bare, phrases: list[list[int]], outputs: list[list[int]], rounds: int
) -> dict[str, float]:
    arrays = [np.array(phrase) for phrase in phrases]
    ids = [np.array(output) for output in outputs]
    heads = [array[:3] for array in arrays[:100]]
    rows = [
        {
            "count us": seconds(lambda: [index.count(a) for a in arrays]) / len(arrays) * 1e6,
            "next ms": seconds(lambda: [index.next_tokens(a) for a in heads]) / len(heads) * 1e3,
            "spans ms": median(seconds(lambda o=o: maximal_spans(index, o, ANY)) for o in ids[:-1])
            * 1e3,
            "copied ms": seconds(lambda: maximal_spans(index, ids[-1], ANY)) * 1e3,
        }
        for _ in range(rounds + 1)
    ]
    return {name: median(row[name] for row in rows[1:]) for name in rows[0]}


def beside_infini_gram(
    args: argparse.Namespace, folder: Path, text: np.ndarray, index: Bare, asked: dict[str, Any]
) -> dict[str, float]:
    """Their indexing and engine on the same tokens; raises where counts or spans differ."""
    theirs = folder / "infini"
    theirs.mkdir()
    text[:-1].astype(f"<u{text.itemsize}").tofile(theirs / "tokenized.0")
    starts = np.flatnonzero(text[:-1] == separator_of(text.dtype)) * text.itemsize
    starts.astype("<u8").tofile(theirs / "offset.0")
    told = {"width": text.itemsize, "vocabulary": index.tokenizer.vocabulary, "rounds": args.rounds}
    (folder / "asked.json").write_text(json.dumps(asked | told))
    runner = Path(__file__).parent / "peers" / "infini_gram_runner.py"
    command = [args.peer, str(runner), str(theirs), str(folder / "asked.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"infini-gram failed: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    counts = [index.count(phrase) for phrase in asked["phrases"]]
    spans = [
        [(*span, index.count(output[slice(*span)])) for span in maximal_spans(index, output, ANY)]
        for output in map(np.array, asked["outputs"])
    ]
    if counts != found["counts"] or spans != [list(map(tuple, s)) for s in found["spans"]]:
        raise SystemExit("infini-gram counts otherwise")
    return found["times"]


def main() -> None:
    args = arguments()
    if args.child:
        child(*args.child)
        return
    tokenizer = named_tokenizer(args.tokenizer) if args.tokenizer else any_tokenizer()
    table: list[dict[str, Any]] = []
    for size in (args.tokens // 10, round(args.tokens / 10**0.5), args.tokens):
        rng = np.random.default_rng(args.seed)
        if args.corpus:
            documents = corpus_documents(args.corpus, tokenizer, size, rng)
        else:
            documents = random_documents(size, rng)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            text = write(documents, folder, token_type(tokenizer.vocabulary))
            row: dict[str, Any] = {"tokens": len(text), **builds(folder, text, args.rounds)}
            index = opened(folder, documents, tokenizer)
            phrases, outputs = questions(documents, rng)
            row |= look_ups(index, phrases, outputs, args.rounds)
            if args.peer:
                asked = {"phrases": phrases, "outputs": outputs}
                row["infini-gram"] = beside_infini_gram(args, folder, text, index, asked)
        row["build M tokens/s"] = len(text) / row["build s"] / 1e6
        table.append(row)
    report(table)
    if args.json:
        told = {"rounds": args.rounds, "corpus": args.corpus or "zipf", "table": table}
        Path(args.json).write_text(json.dumps(told, indent=1) + "\n")


def report(table: list[dict[str, Any]]) -> None:
    names = [name for name in table[0] if name != "infini-gram"]
    for name in names:
        values = "".join(
            f"{row[name]:14,d}" if name == "tokens" else f"{row[name]:14.3f}" for row in table
        )
        print(f"{name:24}{values}")
    for name in table[0].get("infini-gram", ()):
        values = "".join(f"{row['infini-gram'][name]:14.3f}" for row in table)
        print(f"{'infini-gram ' + name:24}{values}")


if __name__ == "__main__":
    main()
