"""The loops that an index build is measured against, on the same model, batch and threads.

`step` is a plain training step with the weight gradients of the attributed layers; `floor` computes
forward and activation gradients only, which any hook-based collector must at least do; `forward`
is the forward pass alone.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """Resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Measured:
    """Wall and CPU seconds, and the peak of resident memory, of a block."""

    def __enter__(self) -> Measured:
        self.peak = self.before = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, resident())

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = cpu_seconds() - self._cpu
        self._stop.set()
        self._thread.join()


def nll(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(flat, ids[:, 1:].reshape(-1), reduction="sum")


def run_loop(model: Any, batches: list[torch.Tensor], mode: str, names: set[str]) -> None:
    """One pass of a loop; `names` are the attributed parameters."""
    before = [(p, p.requires_grad) for p in model.parameters()]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(mode == "step" and name in names)
    try:
        for ids in batches:
            if mode == "forward":
                with torch.no_grad():
                    nll(model(input_ids=ids, use_cache=False).logits, ids)
                continue
            given: dict[str, torch.Tensor] = {"input_ids": ids}
            if mode == "floor":
                embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
                given = {"inputs_embeds": embedded}
            nll(model(**given, use_cache=False).logits, ids).backward()
            model.zero_grad(set_to_none=True)
    finally:
        for parameter, wanted in before:
            parameter.requires_grad_(wanted)


def spread(values: list[float]) -> str:
    return f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def interleaved(jobs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each job's seconds, all jobs once a round, so that a noisy machine hits them alike."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
            print(f"round {number + 1}/{rounds}  {name:14} {found[name][-1]:8.2f} s", flush=True)
    return found
