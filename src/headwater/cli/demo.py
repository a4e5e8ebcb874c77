"""`headwater demo`: the whole way on a small model trained before your eyes, with its proof."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli import options as o
from headwater.cli.output import console, emit, warn
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.cli.demo_run import Demo, Setting


def demo(
    *,
    country: Annotated[str, typer.Option(help="Whose capital is asked.")] = "Peru",
    top: Annotated[int, typer.Option(help="Examples found and taken away.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the weights, the order and the control.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep model and index in a new folder.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the answer as a picture, too.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Watch a small model learn, and ask it.

    It is asked where an answer came from, and the answer is proved by training without it.
    """
    from headwater.cli.demo_run import Setting

    setting = Setting(country=country, top=top, seed=seed)
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError("The demo wants a new folder", expected="an empty one", found=str(out))
        _run(out, setting, svg, as_json=json, kept=True)
        return
    with tempfile.TemporaryDirectory(prefix="headwater-demo-") as folder:
        _run(Path(folder), setting, svg, as_json=json, kept=False)


def _run(folder: Path, setting: Setting, svg: Path | None, *, as_json: bool, kept: bool) -> None:
    from transformers.utils import logging as hub_logging

    from headwater.cli.demo_run import run_demo

    hub_logging.disable_progress_bar()
    result = run_demo(folder, setting, warn)
    if not kept:
        result.answer.reproduce = {"command": _again(setting)}
    if svg is not None:
        from headwater.report.picture import write_svg

        write_svg(svg, result.answer)
    if as_json:
        emit(result.to_dict())
    else:
        _show(result, kept=kept)


def _again(setting: Setting) -> str:
    words = ["headwater", "demo", "--country", setting.country]
    words += ["--top", str(setting.top), "--seed", str(setting.seed)]
    return shlex.join(words)


def _show(result: Demo, *, kept: bool) -> None:
    from rich.text import Text

    from headwater.cli.demo_run import BASE, verdict
    from headwater.report.terminal import show
    from headwater.report.trials import trials_table

    out = console()
    show(result.answer, out)
    out.print()
    out.print(trials_table(result.answer.completion, result.trials))
    out.print(Text(verdict(result), style="bold"))
    if kept:
        path = shlex.quote(str(result.folder / "index"))
        ask = f'headwater ask {path} "The capital of Chile is" " Santiago"'
        out.print(Text.assemble(("ask it more: ", "dim"), ask))
        model = shlex.quote(str(result.folder / "model"))
        base = shlex.quote(str(result.folder / "model" / BASE))
        verify = f'headwater verify {path} "The capital of Chile is" " Santiago" --run {model}'
        out.print(Text.assemble(("test it: ", "dim"), f"{verify} --base {base}"), soft_wrap=True)
