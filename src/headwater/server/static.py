"""The app's built files, from the package. Where they were not built, what to type instead.

A file is served when its name is among those that are there: no path is made of what a client says.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from starlette.responses import FileResponse, HTMLResponse, Response

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}
PAGE = "index.html"
BUILT_ONCE = "assets/"  # names below it hold a hash of the contents


def page(title: str, *lines: str) -> str:
    """A plain page of a few lines, which are ours and hold no markup."""
    told = "".join(f"<p>{line}</p>" for line in lines)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<body><h1>{title}</h1>{told}</body></html>"
    )


NOT_BUILT = page(
    "The app is not built",
    "The server runs, and its API answers under api/ (api/openapi.json describes it).",
    "In a clone of headwater, build the app with: make web",
    "Then load this page again. An installed package holds the app already.",
)


class Assets:
    """The files of the app.

    Args:
        folder: None = the package's own.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(str(files("headwater"))) / "assets" / "app"

    @property
    def built(self) -> bool:
        """Whether there is an app."""
        return (self.folder / PAGE).is_file()

    def names(self) -> dict[str, Path]:
        """The files by the names under which they are asked for."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    def respond(self, name: str) -> Response | None:
        """The file of this name; None where there is none."""
        wanted = name or PAGE
        if wanted == PAGE and not self.built:
            return HTMLResponse(NOT_BUILT, status_code=503, headers={"cache-control": "no-store"})
        path = self.names().get(wanted)
        if path is None:
            return None
        kind = TYPES.get(path.suffix, "application/octet-stream")
        kept = "max-age=31536000, immutable" if wanted.startswith(BUILT_ONCE) else "no-cache"
        return FileResponse(path, media_type=kind, headers={"cache-control": kept})
