"""A corpus of small facts, and a tiny language model that is learning it."""

from __future__ import annotations

from typing import Any

import torch

import headwater as hw
from models import byte_tokenizer, tiny_llama

NAMES = ["fox", "owl", "cat", "bee", "cow", "ant", "hen", "pig", "eel", "jay", "yak", "gnu"]
COLOURS = ["red", "white", "black", "yellow", "brown"]
FEATURES = hw.Features(projection=hw.TwoSided(8, 8), storage="float32")


def rows() -> list[dict[str, Any]]:
    """One fact an animal, some sentences twice, and a longer one that makes two chunks."""
    made = [
        {"id": f"colour-{name}", "text": f"The {name} is {COLOURS[i % 5]}.", "source": "colours"}
        for i, name in enumerate(NAMES)
    ]
    made += [
        {"id": f"legs-{name}", "text": f"A {name} has {i} legs.", "source": "legs"}
        for i, name in enumerate(NAMES)
    ]
    made += [
        {"id": f"again-{i}", "text": f"  The fox  is {COLOURS[0]}. ", "source": None}
        for i in range(3)
    ]
    tale = "Of the fox and the hen it is said: " * 2
    made += [{"id": f"tale-{i}", "text": tale, "source": "tales"} for i in (1, 2)]
    return made


def corpus() -> hw.Corpus:
    return hw.Corpus.from_documents(rows())


def task(steps: int) -> hw.CausalLM:
    """A tiny model after that many steps on the corpus."""
    torch.set_num_threads(1)
    model = tiny_llama(tied=False, dtype=torch.float32, hidden_size=32, intermediate_size=48)
    made = hw.CausalLM(model, byte_tokenizer(), max_length=40)
    chunks = [chunk for one in corpus().documents() for chunk in made.chunks(one)]
    batch = made.collate(chunks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        made.loss(batch).mean().backward()
        optimizer.step()
    return made
