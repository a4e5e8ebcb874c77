"""An answer as a live part of a notebook: the interface, given its data by the kernel."""

from __future__ import annotations

import json
from typing import Any

import anywidget
import traitlets

from headwater.engine.plain import plain


class AnswerWidget(anywidget.AnyWidget):
    """The interface in a cell's output; `payload` is its data as JSON."""

    payload = traitlets.Unicode("{}").tag(sync=True)

    @classmethod
    def of(cls, source: str, data: dict[str, Any]) -> AnswerWidget:
        """A widget that runs `source` (the built module) on `data`."""
        kind = type("AnswerWidget", (cls,), {"_esm": source})
        return kind(payload=json.dumps(plain(data)))

    def shown(self) -> dict[str, Any]:
        """What a cell's output holds, by MIME type."""
        view: Any = self._repr_mimebundle_()
        return dict(view[0] if isinstance(view, tuple) else view or {})
