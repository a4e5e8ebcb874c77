"""An Estimate as rows of a table."""

from __future__ import annotations

from headwater.engine.progress import clock
from headwater.evidence.cost import TextCost
from headwater.index.estimate import Estimate
from headwater.report.contents import coverage_line
from headwater.report.figures import size


def estimate_rows(estimate: Estimate) -> list[tuple[str, str]]:
    """What, and how much."""
    about = "" if estimate.counted else "about "
    rows = [
        (
            "corpus",
            f"{about}{estimate.documents:,} documents, {estimate.chunks:,} chunks, "
            f"{estimate.tokens:,} tokens",
        ),
        ("known by", estimate.basis),
        (
            "time",
            f"about {clock(estimate.seconds)} at {estimate.tokens_per_second:,.0f} tokens/s on "
            f"{estimate.device} in {estimate.dtype}, batches of {estimate.budget:,} tokens",
        ),
        ("of that", ", ".join(f"{k} {clock(s)}" for k, s in estimate.parts.items())),
        ("disk", _disk(estimate)),
        ("peak memory", f"about {size(estimate.peak_memory_bytes)}"),
        (
            "features",
            f"{estimate.dimensions:,} dimensions in {estimate.blocks:,} blocks, {estimate.storage}",
        ),
        ("coverage", coverage_line(estimate.coverage)),
    ]
    if estimate.skipped:
        rows.insert(1, ("skipped", f"{estimate.skipped:,} of the sample cannot be used"))
    return rows


def text_rows(cost: TextCost) -> list[tuple[str, str]]:
    """The same of a corpus without a model."""
    about = "" if cost.counted else "about "
    rows = [
        ("corpus", f"{about}{cost.documents:,} documents, {cost.words:,} words"),
        ("known by", cost.basis),
        ("disk", f"about {size(cost.disk_bytes['corpus'])}"),
    ]
    for kind, held in cost.peak_memory_bytes.items():
        told = f"about {size(cost.disk_bytes[kind])} more on disk, {size(held)} of memory"
        rows.append((kind, f"{told} (built when it is first asked for)"))
    if cost.skipped:
        rows.insert(1, ("skipped", f"{cost.skipped:,} of the sample cannot be used"))
    return rows


def verbatim_row(disk: int, memory: int) -> tuple[str, str]:
    """What verbatim evidence adds when it is first asked for."""
    told = f"about {size(disk)} more on disk, {size(memory)} of memory while it is sorted"
    return "verbatim", f"{told} (built when it is first asked for)"


def _disk(estimate: Estimate) -> str:
    parts = estimate.disk_bytes
    total = sum(parts.values())
    named = ", ".join(f"{name} {size(count)}" for name, count in parts.items())
    return f"about {size(total)} ({named})"
