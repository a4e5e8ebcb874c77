"""The commands brought together, and how they end: a result, or one line that says what was wrong.

Exit codes: 0; those of `engine/errors.py`; 2 for a command typed wrongly; 70 for a defect of ours;
130 when stopped by Ctrl-C.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from headwater import __version__
from headwater.cli.ask import ask
from headwater.cli.build import estimate, index
from headwater.cli.demo import demo
from headwater.cli.difficulty import difficulty
from headwater.cli.evaluate import evaluate
from headwater.cli.inspect import inspect
from headwater.cli.memorization import memorization
from headwater.cli.methods import methods
from headwater.cli.output import Remarks, warn
from headwater.cli.rank import rank
from headwater.cli.serve import serve
from headwater.cli.verify import verify
from headwater.engine.errors import HeadwaterError
from headwater.report.words import printable

DEFECT, STOPPED = 70, 130

app = typer.Typer(
    name="headwater",
    help="Where did the model get this? The training examples behind what a model says.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, estimate, index, ask, verify, rank, inspect, memorization, difficulty):
    app.command()(command)
app.command()(methods)
app.command()(serve)
app.add_typer(evaluate)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwater {__version__}")
        raise typer.Exit


@app.callback()
def _top(  # pyright: ignore[reportUnusedFunction] - typer calls it
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more on standard error.")
    ] = False,
) -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, Remarks) for handler in root.handlers):
        root.addHandler(Remarks())
    logging.getLogger("headwater").setLevel(logging.INFO if verbose else logging.WARNING)
    # Other libraries' remarks are not ours to make; asked for, they stay.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning" if verbose else "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and leave the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. A failure is one line on standard error."""
    code = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _nobody_reads()
    return code


def _run(arguments: list[str] | None) -> int:
    try:
        code = app(arguments, standalone_mode=False) or 0
        return _stopped() if code == STOPPED else code  # what typer makes of Ctrl-C
    except BrokenPipeError:
        _nobody_reads()
        return 0
    except SystemExit as end:  # what typer makes of the same
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _nobody_reads()
        return 0
    except HeadwaterError as error:
        return _failed(str(error), error.exit_code, error)
    except Exception as error:
        return _other(error)


def _nobody_reads() -> None:
    """The reader of our output left (`| head`): nothing is said to it, also not at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _other(error: Exception) -> int:
    """What is no HeadwaterError: a command typed wrongly, a full disk, or a defect of ours."""
    spoken = getattr(error, "format_message", None)
    if spoken is not None:
        context = getattr(error, "ctx", None)
        path = "headwater" if context is None else context.command_path
        text = " ".join(str(spoken()).split())
        if not text:  # no command at all: the help was shown instead
            return 2
        return _failed(f"{text} See: {path} --help", getattr(error, "exit_code", 2), error)
    if type(error).__name__ == "Abort":
        return _stopped()
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        text = "The disk is full; what was finished is kept. Free some space and run it again"
        return _failed(text, 7, error)
    if isinstance(error, MemoryError):
        return _failed("Memory ran out; what was finished is kept", 7, error)
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    hint = "This is a defect of headwater; HEADWATER_DEBUG=1 shows the traceback"
    return _failed(f"{text}. {hint}", DEFECT, error)


def _failed(text: str, code: int, error: Exception) -> int:
    if os.environ.get("HEADWATER_DEBUG"):
        traceback.print_exception(error, file=sys.stderr)
    warn(printable(f"error: {' '.join(text.split())}"))
    return code


def _stopped() -> int:
    warn("\nstopped. What was finished is kept: started again, a build goes on where it was.")
    return STOPPED
