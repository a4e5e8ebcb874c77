"""A wheel or an sdist without the built interface would be broken, so there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NEEDED = ("app/index.html", "report.html", "widget.js")


class NeedsInterface(BuildHookInterface[Any]):
    """Refuses to build without it; an editable install may do without."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects files."""
        if version == "editable":
            return
        assets = Path(self.root) / "src" / "headwater" / "assets"
        missing = [name for name in NEEDED if not (assets / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"The interface is not built: {', '.join(missing)} not in {assets}. "
                "Type `make web` (or python web/build.py) first."
            )
