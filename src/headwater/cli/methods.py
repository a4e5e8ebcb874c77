"""`headwater methods`: what there is to choose from, and what each needs."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit, emit_lines
from headwater.engine.errors import InputError

# Parameters with an option of their own; the others are set by name.
OWN = {"run": "--run FOLDER", "base": "--base FOLDER", "eval_queries": "--eval-queries FILE"}


def methods(
    name: Annotated[str | None, typer.Argument(help="One of them, with its parameters.")] = None,
    *,
    json: o.Json = False,
) -> None:
    """List the methods: what each needs and costs, its unit, whether its scores may be summed."""
    from headwater.evidence.rankers import METHODS, required, takes

    if name is not None:
        _one(name, as_json=json)
        return
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
            "may take": [one for one in OWN if takes(name, one) and one not in required(name)],
        }
        for name, method in METHODS.items()
    ]
    if json:
        emit_lines(rows)
        return
    _show(rows)


def _one(name: str, *, as_json: bool) -> None:
    """A method's parameters (those of `--set`) with their defaults, and what they mean."""
    from headwater.evidence.rankers import METHODS, options_of

    if name not in METHODS:
        raise InputError("There is no such method", expected=", ".join(METHODS), found=name)
    kind = METHODS[name]
    given = inspect.signature(kind).parameters
    parameters = [
        {
            "name": one,
            "type": str(given[one].annotation),
            "default": None if given[one].default is given[one].empty else str(given[one].default),
        }
        for one in options_of(name)
    ]
    told = inspect.cleandoc(kind.__doc__ or "")
    if as_json:
        emit({"name": name, "title": kind.title, "about": told, "parameters": parameters})
        return
    out = console()
    out.print(f"{name}: {told}", markup=False, highlight=False)
    for one in parameters:
        default = "needed" if one["default"] is None else f"default {one['default']}"
        flag = OWN.get(str(one["name"]), f"--set {one['name']}=...")
        out.print(f"  {flag}  {one['type']}, {default}", markup=False, highlight=False)


def _said(method: Any, attribute: str, otherwise: str) -> str:
    """An attribute of the class; what depends on the instance's settings is not known yet."""
    found = getattr(method, attribute)
    return found if isinstance(found, str) else otherwise


def _show(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("--method", no_wrap=True)
    for column in ("what", "unit", "summed", "needs", "costs"):
        table.add_column(column, overflow="fold")
    for row in rows:
        flags = [OWN[one] for one in row["options"]] + [f"[{OWN[one]}]" for one in row["may take"]]
        asked = escape("\n".join([row["name"], *flags]))
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
