"""One piece of work and what became of it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from headwater.server.told import as_json

Lane = Literal["model", "reader"]
State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")


class Tell(Protocol):
    """Sends an event (`token`, for example) to those who watch a job."""

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        """Raises Cancelled when the job was cancelled."""
        ...


@dataclass(eq=False)
class Job:
    """One piece of work and what became of it; read it while holding `Jobs.lock`.

    Args:
        result: as JSON, written once. events: (number from 1, name, JSON) of what was told.
        place: in its lane's queue, from 1; 0 when it does not wait.
    """

    kind: str
    lane: Lane
    work: Callable[[Tell], str]
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "queued"
    place: int = 0
    progress: str | None = None
    result: str | None = None
    error: dict[str, Any] | None = None
    events: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    unwanted: bool = False
    ended: float = 0.0
    watchers: set[Callable[[], None]] = field(default_factory=set[Callable[[], None]])

    def to_json(self) -> str:
        """The state of it; the result as it stands."""
        told = {"id": self.id, "kind": self.kind, "state": self.state, "place": self.place}
        return (
            f"{json.dumps(told)[:-1]}"
            f', "progress": {self.progress or "null"}, "result": {self.result or "null"}'
            f', "error": {as_json(self.error)}}}'
        )
