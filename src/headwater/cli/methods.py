"""`headwater methods`: what there is to choose from, and what each needs."""

from __future__ import annotations

from typing import Any

from headwater.cli import options as o
from headwater.cli.output import console, emit_lines


def methods(*, json: o.Json = False) -> None:
    """List the methods: what each needs and costs, its unit, whether its scores may be summed."""
    from headwater.evidence.rankers import METHODS, required

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "title": _said(method, "title", method.__name__),
            "unit": _said(method, "unit", "as its parts have"),
            "additive": method.additive,
            "influence": method.influence,
            "needs": method.needs,
            "costs": method.costs,
            "options": required(name),
        }
        for name, method in METHODS.items()
    ]
    if json:
        emit_lines(rows)
        return
    _show(rows)


def _said(method: Any, attribute: str, otherwise: str) -> str:
    """An attribute of the class; what depends on the instance's settings is not known yet."""
    found = getattr(method, attribute)
    return found if isinstance(found, str) else otherwise


def _show(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for column in ("--method", "what", "unit", "summed", "needs", "costs"):
        table.add_column(column, overflow="fold")
    for row in rows:
        asked = " ".join([row["name"], *(f"--{one} FOLDER" for one in row["options"])])
        says = "influence" if row["influence"] else "likeness"
        sums = "yes" if row["additive"] else "no"
        table.add_row(
            asked, f"{row['title']} ({says})", row["unit"], sums, row["needs"], row["costs"]
        )
    console().print(table)
    console().print(
        "[dim]a view with -ensemble (trak-ensemble) is averaged over the index's feature sets; "
        "bm25+trackstar fuses two, bm25:200:trackstar ranks the first 200 of one by the other[/]"
    )
