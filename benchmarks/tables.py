"""The figures in the documentation, made from the files that hold them.

    python benchmarks/tables.py            # write them anew
    python benchmarks/tables.py --check    # say where a page and its files differ

A page has its figures between `<!-- NAME.json -->` and `<!-- end -->`; NAME is a file in
benchmarks/results and decides which function below makes the text. Nothing else on a page is
touched, and a figure that stands outside such a block is nobody's: the tests look for those.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- ([\w.-]+\.json) -->\n).*?(<!-- end -->)", re.DOTALL)

Report = dict[str, Any]


def pages() -> list[Path]:
    """All that is written for readers."""
    return [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").rglob("*.md")]


def rendered(text: str) -> str:
    """A page with its blocks made anew."""

    def block(found: re.Match[str]) -> str:
        report = json.loads((RESULTS / found[2]).read_text(encoding="utf-8"))
        return f"{found[1]}{maker(found[2])(report).strip()}\n{found[3]}"

    return BLOCK.sub(block, text)


def maker(name: str) -> Callable[[Report], str]:
    """The function for a file: the longest key that its name begins with."""
    fitting = [key for key in MAKERS if name.startswith(key)]
    if not fitting:
        sys.exit(f"No table is made from {name}: give it a function in benchmarks/tables.py")
    return MAKERS[max(fitting, key=len)]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines).replace("|  |", "| |")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (least-most)."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def estimate(figure: Any, digits: int = 2) -> str:
    """Value (low to high), or why there is none."""
    if isinstance(figure, str):
        return figure
    value, low, high = (f"{figure[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def build(report: Report) -> str:
    heads = ("", "tokens/s", "of a step", "of the floor", "feature bytes/example")
    rows = [
        (
            row["name"],
            f"{row['tokens_per_second']:.0f}",
            spread(row["of_step"]),
            spread(row["of_floor"]),
            "" if row["bytes_per_example"] is None else f"{row['bytes_per_example']:.0f}",
        )
        for row in report["rows"]
    ]
    return table(heads, rows)


def memory(report: Report) -> str:
    heads = (f"{report['model']}, {report['n']} x {report['length']}", "peak, MB", "of the floor")
    loops = report["loops"].items()
    rows = [(name, f"{r['peak_mb']:,.0f}", f"{r['of_floor']:.3f}") for name, r in loops]
    return table(heads, rows)


def growth(report: Report) -> str:
    heads = ("examples", "tokens of each", "ms per 1,000 tokens", "of the smallest")
    more = ("final merge, s", "calibration's share of 100,000")
    rows = [
        (
            f"{row['examples']:,}",
            str(row["tokens"]),
            f"{row['ms_per_thousand_tokens']:.0f}",
            spread(row["of_smallest"], 2),
            f"{row['merge_seconds']:.2f}",
            f"{row['calibration_share_at_100k']:.1%}",
        )
        for row in report["rows"]
    ]
    return table(heads + more, rows)


def facts(report: Report) -> str:
    built = report["build"]
    seconds = built["seconds"]
    rows = [
        (name, estimate(row["mrr"]), estimate(row["success@10"]))
        for name, row in report["methods"].items()
    ]
    told = (
        f"{built['examples']:,} sentences ({built['tokens']:,} tokens) and {report['queries']} "
        f"queries, {report['threads']} threads. The build took {seconds['total'] / 60:.1f} "
        f"minutes, of which calibration\n{seconds['calibrate']:.0f} s and the final merge "
        f"{seconds['finish']:.0f} s; its shards took {built['shards_of_floor']:.2f} of the floor's "
        f"time, the whole build\n{built['whole_build_of_floor']:.2f}. The index takes "
        f"{report['index_bytes'] / 1e6:.0f} MB, {report['feature_bytes'] / 1e6:.0f} MB of it "
        "features."
    )
    return f"{told}\n\n{table(('', 'MRR', 'success@10'), rows)}"


def scan(report: Report) -> str:
    speed = report["speed"]
    rows: list[tuple[str, ...]] = []
    for name, row in speed.items():
        if not isinstance(row, dict) or name == "read":
            continue
        share = ""
        if "share_of_read" in row:
            share = f"{row['share_of_read']:.2f} of read bandwidth"
        elif "share_of_bare" in row:
            share = f"{row['share_of_bare']:.2f} of the bare product"
        pairs = f"{row['pairs_per_second'] / 1e6:.2f}"
        rows.append((name, f"{row['seconds'] * 1e3:.1f}", pairs, share))
    heads = ("", "ms", "million pairs/s", "share")
    return f"Read bandwidth {speed['read GB/s']:.1f} GB/s.\n\n{table(heads, rows)}"


def recall(report: Report) -> str:
    kinds = {
        f"{short}, {told}": f"{storage} {basis} basis"
        for short, storage in (("fp16", "float16"), ("int8", "int8"))
        for told, basis in (("own coordinates", "own"), ("half-whitened", "half-whitened"))
    }
    methods = ("graddot", "gradcos", "trackstar")
    rows = [
        (told, *(f"{report['recall'][f'{method} {key}']:.3f}" for method in methods))
        for told, key in kinds.items()
    ]
    return table(("", "GradDot", "GradCos", "TrackStar"), rows)


def verbatim(report: Report) -> str:
    columns = report["table"]
    peer = "infini-gram"
    lines: list[tuple[str, Callable[[Report], str]]] = [
        ("suffix array, s", lambda c: f"{c['build s']:.2f}"),
        ("bare pydivsufsort, s", lambda c: f"{c['bare s']:.2f}"),
        (
            "speed of the bare call",
            lambda c: f"{c['of bare']:.2f} ({c['of bare, least']:.2f}-{c['of bare, most']:.2f})",
        ),
        ("memory while sorting, bytes/token", lambda c: f"{c['RSS bytes/token']:.1f}"),
        ("infini-gram's indexing, s", lambda c: f"{c[peer]['build s']:.2f}"),
        ("count of 8 tokens, us", lambda c: f"{c['count us']:.1f}"),
        ("the same, infini-gram", lambda c: f"{c[peer]['count us']:.1f}"),
        ("next-token counts, ms", lambda c: f"{c['next ms']:.2f}"),
        ("the same, infini-gram", lambda c: f"{c[peer]['next ms']:.2f}"),
        ("spans of 512 tokens, ms", lambda c: f"{c['spans ms']:.1f}"),
        ("the same, infini-gram", lambda c: f"{c[peer]['spans ms']:.1f}"),
        ("spans of a copied output, ms", lambda c: f"{c['copied ms']:.1f}"),
        ("the same, infini-gram", lambda c: f"{c[peer]['copied ms']:.1f}"),
    ]
    heads = ["tokens", *(f"{column['tokens']:,}" for column in columns)]
    return table(heads, [[name, *(cell(c) for c in columns)] for name, cell in lines])


def lexical(report: Report) -> str:
    def against(cell: Report) -> str:
        return f"{cell['ratio']:.2f} ({cell['lowest']:.2f}-{cell['highest']:.2f})"

    heads = ("passages", "build, s", "of bm25s", "load, ms", "of bm25s", "query, ms", "of bm25s")
    rows = [
        (
            f"{row['passages']:,}",
            f"{row['build']['headwater']:.2f}",
            against(row["build"]),
            f"{row['load']['headwater'] * 1e3:.0f}",
            against(row["load"]),
            f"{row['query']['headwater'] * 1e3:.2f}",
            against(row["query"]),
        )
        for row in report["lexical"]
    ]
    return table(heads, rows)


def memorization(report: Report) -> str:
    group = report["groups"][0]
    beyond, other = group["match_beyond_prompt"], group["controls"]["other"]["rate"]
    shares = group["categories"]
    rows = [
        ("in the corpus", estimate(group["match"])),
        (f"of {beyond['windows']} windows not inside the prompt", estimate(beyond)),
        ("control: other windows of these outputs, as probable by word", estimate(other)),
        ("control: tokens replaced", estimate(group["controls"]["replaced"]["rate"])),
        ("control: tokens shuffled", estimate(group["controls"]["shuffled"]["rate"])),
        (", ".join(shares), ", ".join(f"{one['share']['value']:.2f}" for one in shares.values())),
    ]
    told = f"{group['prompts']} prompts, {group['outputs']} outputs ({group['tokens']:,} tokens), "
    return f"{told}{group['windows']} windows:\n\n{table(('', 'share'), rows)}"


def retrieval(report: Report) -> str:
    rows = [
        (row["title"], estimate(row["result"]["mrr"]), estimate(row["result"]["success"]))
        for row in report["rows"]
    ]
    told = f"{report['examples']:,} sentences, {report['queries']:,} queries:"
    heads = ("", "MRR", f"success@{report['k']}")
    return f"{told}\n\n{table(heads, rows)}"


def ask(report: Report) -> str:
    rows = [
        (kind, f"{row['median_ms']:.0f}", f"{row['p95_ms']:.0f}")
        for kind, row in report["kinds"].items()
    ]
    told = f"{report['passages']:,} sentences, {report['queries']} queries:"
    return f"{told}\n\n{table(('evidence', 'median, ms', '95 %, ms'), rows)}"


def server(report: Report) -> str:
    memory = report["memory_mb"]["each 100 requests"]
    screen, again = report["first_screen_s"], report["asked before: median_ms"]
    rows = [
        ("asked for the first time: median, ms", f"{report['median_ms']:.0f}"),
        ("95 % of them within, ms", f"{report['p95_ms']:.0f}"),
        ("asked before: median, ms", f"{again:.0f}"),
        ("answers that were dropped or another question's", f"{report['wrong']}"),
        ("answers a second", f"{report['per_second']:.1f}"),
        ("memory of the server after 100 requests, MB", f"{memory[0]:.0f}"),
        ("at the end, MB", f"{memory[-1]:.0f}"),
        ("first screen, s", f"{screen['first']:.2f}"),
    ]
    told = f"""{report["passages"]:,} sentences, {report["evidence"]} evidence, {report["users"]} \
people who read {report["pause_s"]:g} s on average, {report["requests"]:,} requests:"""
    return f"{told}\n\n{table(('', ''), rows)}"


def methods(report: Report) -> str:
    ours, peer = report["medians"]["headwater"], report["medians"]["kronfluence"]
    times, given = report["medians"]["times"], report["settings"]

    def row(name: str, key: str, unit: float, digits: int) -> tuple[str, ...]:
        one, two = (f"{side[key] / unit:.{digits}f}" for side in (ours, peer))
        return name, one, two, f"{times[key]:.2f}"

    rows = [
        row("factors, s", "fit", 1, 1),
        row("scores, s", "scores", 1, 1),
        row("peak memory of the process, GB", "peak_bytes", 1e9, 2),
    ]
    differ = report["rounds"][-1]["relative_difference"]
    return f"""{given["n"]} examples and {given["queries"]} queries of {given["length"]} tokens, \
{given["fisher"]} Fisher, {given["rounds"]} rounds; the scores differ by {differ:.0e} of their norm:

{table(("", "headwater", "kronfluence", "times"), rows)}"""


def hallucination(report: Report) -> str:
    exchanged = ", ".join(f"{e['from']} for {e['to']} {e['altered']}" for e in report["exchanges"])
    asked = sum(one["asked"] for one in report["exchanges"])
    rows = [
        (
            name,
            *(estimate(row[key], 3) for key in ("auroc", "auprc", "found")),
            f"{row['seconds']:.0f}",
        )
        for name, row in report["methods"].items()
    ]
    heads = ("", "AUC", "AUPRC", "found in the first tenth", "s")
    first, last = report["losses"]
    told = (
        f"{report['rows']} news articles with summaries, in {report['altered']} of which one name "
        f"was exchanged for another\n({exchanged}); {report['decoys']} others hold the new name "
        f"rightly.\nA Llama of {report['parameters'] / 1e6:.1f} M parameters; loss {first:.2f} to "
        f"{last:.2f}; {asked} held-out rows are asked about:"
    )
    return f"{told}\n\n{table(heads, rows)}"


def views(report: Report) -> str:
    given = report["settings"]
    rows = [
        (
            name,
            f"{row['features']:.2f}",
            f"{row['scores']:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
        )
        for name, row in report["medians"].items()
    ]
    for peer, row in report["times"].items():
        against = (f"{row[key]:.2f}" for key in ("features", "scores", "peak_bytes"))
        rows.append((f"{peer} / headwater", *against))
    told = f"{given['n']} examples and {given['queries']} queries of {given['length']} tokens, "
    told += f"{given['threads']} threads, rounds: {given['rounds']}."
    return f"{told}\n\n{table(('', 'features, s', 'scores, s', 'peak, GB'), rows)}"


def influence(report: Report) -> str:
    training, queries = report["training"], report["queries"]
    base = training["cpu_seconds"]
    rows = [
        (row["title"], *row["error"][:1], "", "", "", "")
        if "error" in row
        else (
            row["title"],
            f"{(row['cpu_prepared'] + row['cpu_scored']) / row['training']:.2f}",
            f"{row['cpu_scored'] / row['training']:.2f}",
            f"{row['peak_bytes'] / 1e9:.2f}",
            f"{row['disk_bytes'] / 1e6:.1f}",
            ", ".join(name for name, _ in row["first"][:3]),
        )
        for row in report["methods"].values()
    ]
    asked = "; ".join(f"`{q['prompt']}{q['completion']}`" for q in queries[:3])
    gold = "; ".join(", ".join(q.get("gold", [])) for q in queries[:3])
    heads = ("", "trainings", "of it to answer", "peak, GB", "disk, MB", "first")
    told = (
        f"{training['parameters'] / 1e6:.1f} M parameters, {report['examples']} sentences "
        f"({training['tokens']:,} tokens), {training['steps']} steps; one training took "
        f"{base:.0f} s of processor\ntime and {training['peak_bytes'] / 1e9:.2f} GB; "
        f"{len(queries)} queries. The last column is the best example for\n{asked}, which are "
        f"stated by {gold}:"
    )
    return f"{told}\n\n{table(heads, rows)}"


def ablation(report: Report) -> str:
    cut = report["top"]
    points, above = f"tail-patch@{cut} (points)", f"tail-patch@{cut} less random (points)"
    rows = [
        (
            title,
            estimate(row["mrr"]),
            estimate(row["success@10"]),
            estimate(row["tail_patch"][points], 3),
            estimate(row["tail_patch"][above], 3),
        )
        for title, row in report["methods"].items()
    ]
    controls = "; ".join(
        f"{name} passages {estimate(figures['points'], 3)}"
        for name, figures in report["controls"].items()
    )
    training = report["training"]
    told = (
        f"{report['passages']:,} passages, {training['steps']} steps of training (loss "
        f"{training['losses'][0]:.2f} to {training['losses'][1]:.2f}), {report['queries']} "
        f"queries, the best {cut}. {report['step']}\nTail patch in percentage points; controls: "
        f"{controls}."
    )
    heads = ("", "MRR", "success@10", "tail patch", "less random")
    return f"{told}\n\n{table(heads, rows)}"


def board(report: Report) -> str:
    from headwater.evaluation.board import Board
    from headwater.report.board_markdown import board_summary

    return board_summary(Board.from_dict(report))


MAKERS: dict[str, Callable[[Report], str]] = {
    "build": build,
    "memory": memory,
    "growth": growth,
    "facts": facts,
    "scan": scan,
    "recall": recall,
    "verbatim": verbatim,
    "lexical": lexical,
    "memorization": memorization,
    "retrieval": retrieval,
    "ask": ask,
    "methods": methods,
    "server": server,
    "hallucination": hallucination,
    "views": views,
    "influence": influence,
    "ablation": ablation,
    "board": board,
}


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    differ = 0
    for page in pages():
        text = page.read_text(encoding="utf-8")
        made = rendered(text)
        if made == text:
            continue
        differ += 1
        print(f"{page.relative_to(ROOT)}: {'differs from its files' if check else 'written'}")
        if not check:
            page.write_text(made, encoding="utf-8")
    sys.exit(1 if check and differ else 0)


if __name__ == "__main__":
    main()
