"""`headwater inspect`: what an index holds, and whether its bytes are what was written."""

from __future__ import annotations

import typer

from headwater.cli import options as o
from headwater.cli.output import emit, facts
from headwater.engine.errors import DamageError


def inspect(out: o.Out, json: o.Json = False) -> None:
    """Check an index and show what is in it.

    Every file is compared with its checksum; OUT is the index, finished or half-built.
    """
    from headwater.index.integrity import damaged
    from headwater.index.store import damaged_stores
    from headwater.report.contents import content_rows, contents
    from headwater.report.evidence import evidence_rows, kept_evidence

    record = contents(out)
    bad = damaged(out)
    lost = damaged_stores(out)
    record["damaged"] = bad + lost
    record["evidence"] = kept_evidence(out)
    if json:
        emit(record)
    else:
        rows = content_rows(record) + evidence_rows(record["evidence"])
        said = ", ".join(record["damaged"])
        rows.append(("integrity", f"{said} damaged" if said else "every checksum agrees"))
        facts(rows)
    if bad:
        raise DamageError(
            f"{len(bad)} damaged or missing: {', '.join(bad)}",
            do="run the build command again: only what is damaged is made anew",
        )
    if lost:
        raise DamageError(
            f"{len(lost)} files of evidence are damaged or missing: {', '.join(lost)}",
            do="remove their folders; they are built again when they are needed",
        )
    raise typer.Exit(0)
