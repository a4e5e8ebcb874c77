"""The built interface inside the package, and data put into its one-file page.

The page runs its own script and nothing else (its policy names the script by hash), and data stands
in it as JSON that holds no `<`: whatever a training text contains, it cannot become markup.
"""

from __future__ import annotations

import html
import json
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from headwater.engine.errors import ResourceError
from headwater.engine.plain import plain

DATA, TITLE = "%DATA%", "<title>Headwater</title>"
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def built(name: str) -> Traversable:
    """A file or folder of the built interface: "app", "report.html", "widget.js".

    Raises:
        ResourceError: where it was not built; says what to type.
    """
    found = files("headwater") / "assets" / name
    if not (found.is_file() or found.is_dir()):
        raise ResourceError(
            "The interface is not built",
            expected=f"{name} among the files of the package",
            do="type `make web` in the clone, or install a released wheel, which has it",
        )
    return found


def script_json(value: Any) -> str:
    """JSON that may stand inside a `<script>` of any page: ASCII, and without `<`, `>` and `&`."""
    return json.dumps(plain(value), ensure_ascii=True, separators=(",", ":")).translate(_ESCAPES)


def page(payload: dict[str, Any], title: str) -> str:
    """One self-contained HTML file that shows `payload`, offline and from any disk.

    Args:
        payload: as `Payload` of the interface's types.ts: version, title, answers.

    Raises:
        ResourceError: where the interface was not built.
    """
    template = built("report.html").read_text(encoding="utf-8")
    head, _, tail = template.partition(DATA)
    shown = html.escape(title.encode("utf-8", "replace").decode("utf-8"))
    head = head.replace(TITLE, f"<title>{shown}</title>")
    return head + script_json(payload) + tail
