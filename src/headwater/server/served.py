"""An index as the server holds it: its model comes from the workbench, or never.

Each thread that reads has an index of its own (files are mapped, so that costs little): what an
index remembers is not made for several threads. One that reads must not load a model by accident.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headwater.engine.errors import InputError
from headwater.evidence.encoder import PACKAGE
from headwater.index.index import Index
from headwater.tasks.texts import Texts

if TYPE_CHECKING:
    from headwater.index.manifest import Manifest
    from headwater.tasks.task import Task

ModelState = Literal["ready", "known", "ask", "none"]
TEXTS = (Texts.kind, "causal_lm")  # kinds of tasks whose examples are texts


class Served(Index):
    """An index whose model is loaded by `loader`; without one it has none.

    `stamp` says when its manifest was written.
    """

    loader: Callable[[Served], Task] | None = None
    stamp = 0

    def load_task(self, name: str | None = None, **options: Any) -> Task:
        """The model, by the loader; raises InputError where there is none."""
        if self.loader is None:
            raise InputError(
                "This work reads an index without its model", do="ask in the lane of it"
            )
        self._task = self.loader(self)
        return self._task

    @property
    def loaded(self) -> Task | None:
        """The model if it is in memory."""
        return self._task

    def take(self, task: Task) -> None:
        """Use this model, which is the same as the index's own."""
        self._task = task

    def let_go(self) -> None:
        """Forget the model and all that was made with it."""
        self._task = self._gradients = None
        self.opened.clear()

    def load_own(self, name: str | None, trusted: bool, **options: Any) -> Task:
        """The model that the manifest names, or the same one from elsewhere."""
        from headwater.index.model import load_task

        return load_task(self.path, self.manifest, name, trusted=trusted, **options)


def model_of(
    path: Path, manifest: Manifest, *, other: str | None, trusted: bool
) -> tuple[ModelState, str | None, str | None]:
    """Whether an index's model can be had, its name, and what there is to say about it.

    Args:
        other: where the same model is instead. trusted: whether someone said yes to it.
    """
    kind, named = manifest["task"]["kind"], manifest["source"].get("name")
    if kind == Texts.kind:
        return "none", None, "The index was made of texts alone: it has no model."
    if kind != "causal_lm":
        return "none", None, f"The index is of a task of kind {kind}, which only Python can open."
    name = other or named
    if not name:
        return "none", None, "The index does not say where its model is: start with --model WHERE."
    if other is None and not trusted and (path / "manifest.json").stat().st_uid != os.getuid():
        told = (
            f"Another user of this machine made this index, and it names the model {name}. "
            "Loading it runs what its files say: allow it if you trust them."
        )
        return "ask", str(name), told
    if Path(name).is_absolute() and not Path(name).exists():
        told = f"Its model is not at {name} any more: start with --model and where it is."
        return "none", str(name), told
    return "known", str(name), None


def kinds_of(path: Path, manifest: Manifest, state: ModelState) -> list[str]:
    """The kinds of evidence that the index can be asked for."""
    import importlib.util

    kinds = ["influence"] if manifest["features"] and state != "none" else []
    if manifest["task"]["kind"] in TEXTS:
        kinds += ["verbatim", "lexical"]
        if importlib.util.find_spec(PACKAGE) is not None:
            kinds.append("semantic")
    return kinds
