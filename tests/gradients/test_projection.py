"""Projections: the same bytes for ever, unbiased, better with more dimensions; the block rule."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features, LayerBlocks, TwoSided
from headwater.gradients.layout import layer_number, make_layout
from headwater.gradients.parameters import Parameter, Use
from headwater.gradients.projection import signs
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.task import Chunk
from models import byte_tokenizer, relative, tiny_llama, token_chunk


def test_the_bytes_never_change() -> None:
    made = [
        signs(0, "model.layers.0.mlp.up_proj.weight", "in", 16, 576),
        signs(7, "x", "out", 3, 5),
    ]
    digests = [hashlib.sha256(m.tobytes()).hexdigest()[:16] for m in made]
    assert digests == [
        "f54ab9de0062f23e",
        "84b7e885f863daf1",
    ]  # an index written today must be readable for ever
    assert np.array_equal(made[0], signs(0, "model.layers.0.mlp.up_proj.weight", "in", 16, 576))


def test_seed_name_side_and_shape_give_independent_matrices() -> None:
    base = signs(0, "a", "in", 8, 512)
    assert set(np.unique(base)) == {-np.float32(1 / np.sqrt(8)), np.float32(1 / np.sqrt(8))}
    others = [
        signs(1, "a", "in", 8, 512),
        signs(0, "b", "in", 8, 512),
        signs(0, "a", "out", 8, 512),
    ]
    others.append(signs(0, "a", "in", 8, 513)[:, :512])
    for other in others:
        assert abs(float((np.sign(base) * np.sign(other)).mean())) < 4 / np.sqrt(base.size)
    assert abs(float(np.sign(base).mean())) < 4 / np.sqrt(base.size)


def test_projected_inner_products_are_unbiased() -> None:
    torch.manual_seed(0)
    g, h = torch.randn(2, 6, 7, dtype=torch.float64)
    h += 0.5 * g
    right = float((g * h).sum())
    found = []
    for seed in range(2000):
        p = torch.from_numpy(signs(seed, "w", "out", 2, 6)).double()
        q = torch.from_numpy(signs(seed, "w", "in", 3, 7)).double()
        found.append(float(((p @ g @ q.T) * (p @ h @ q.T)).sum()))
    mean, error = np.mean(found), np.std(found) / np.sqrt(len(found))
    assert abs(mean - right) < 4 * error
    assert error < 0.1 * abs(right)  # the test could tell


@pytest.mark.parametrize("kind", [TwoSided, LayerBlocks])
def test_agreement_with_full_gradients_rises_with_dimension(kind: type) -> None:
    task = CausalLM(tiny_llama(hidden_size=32, intermediate_size=48), byte_tokenizer())
    pieces = [token_chunk(6, seed=s).content["input_ids"] for s in range(5)]
    rows = [np.concatenate([a, b]) for a in pieces for b in pieces]  # some share a beginning
    chunks = [Chunk({"input_ids": r, "labels": r}, 0, 12) for r in rows]

    def gram(projection: TwoSided | LayerBlocks | None, seed: int = 0) -> np.ndarray:
        u = Gradients(task, Features(projection=projection, seed=seed)).batch(chunks).u.numpy()
        return (u @ u.T)[np.triu_indices(len(u), 1)]

    full = gram(None)
    agreement = [
        np.mean([np.corrcoef(full, gram(kind(n, n), seed))[0, 1] for seed in range(3)])
        for n in (2, 8, 30)
    ]
    assert agreement[0] < agreement[1] < agreement[2]
    assert agreement[2] > 0.9


def test_narrow_sides_are_left_alone() -> None:
    task = CausalLM(tiny_llama(), byte_tokenizer())
    same = Gradients(task, Features(projection=TwoSided(64, 64)))
    full = Gradients(task, Features(projection=None))
    chunks = [token_chunk(6)]
    assert same.layout == full.layout
    assert relative(same.batch(chunks).u, full.batch(chunks).u) == 0
    half = Gradients(task, Features(projection=TwoSided(8, 24)))
    assert half.layout.blocks[0].rows == 8
    assert half.layout.blocks[0].columns == 16


def uses(names: list[str]) -> list[Use]:
    return [
        Use(n.removesuffix(".weight"), "weight", "linear", Parameter(n, "linear", (9, 9), 9, 9))
        for n in names
    ]


def members(names: list[str], groups: int) -> dict[str, list[str]]:
    layout = make_layout(uses(names), LayerBlocks(2, 3, groups))
    assert [b.offset for b in layout.blocks] == [6 * i for i in range(len(layout.blocks))]
    assert layout.size == 6 * len(layout.blocks)
    return {entry["name"]: entry["parameters"] for entry in layout.describe()}


def test_the_block_rule_by_a_hand_worked_example() -> None:
    names = ["embed.weight"]
    for layer in range(5):
        names += [f"h.{layer}.attn.q.weight", f"h.{layer}.mlp.up.weight"]
    names.append("head.weight")
    assert members(names, 2) == {
        "layers 0 attention": [f"h.{i}.attn.q.weight" for i in (0, 1, 2)],
        "layers 0 mlp": ["embed.weight", *[f"h.{i}.mlp.up.weight" for i in (0, 1, 2)]],
        "layers 1 attention": [f"h.{i}.attn.q.weight" for i in (3, 4)],
        "layers 1 mlp": [*[f"h.{i}.mlp.up.weight" for i in (3, 4)], "head.weight"],
    }


def test_fewer_layers_than_groups_and_none_at_all() -> None:
    few = members(["h.0.mlp.weight", "h.1.mlp.weight", "h.2.self_attention.weight"], 8)
    assert few == {
        "layers 0 mlp": ["h.0.mlp.weight"],
        "layers 1 mlp": ["h.1.mlp.weight"],
        "layers 2 attention": ["h.2.self_attention.weight"],
    }
    assert members(["up.weight", "down.weight"], 8) == {
        "layers 0 mlp": ["up.weight", "down.weight"]
    }
    assert layer_number("model.layers.12.mlp.experts.3.weight") == 12
    assert layer_number("lm_head.weight") is None


@given(layers=st.integers(1, 40), groups=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_runs_of_layers_are_consecutive_and_as_equal_as_possible(layers: int, groups: int) -> None:
    found = members([f"h.{i}.mlp.weight" for i in range(layers)], groups)
    runs = [[layer_number(name) for name in names] for names in found.values()]
    assert [layer for run in runs for layer in run] == list(range(layers))
    sizes = [len(run) for run in runs]
    assert len(runs) == min(layers, groups)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: TwoSided(0, 4),
        lambda: LayerBlocks(4, 4, 0),
        lambda: Features(output="logits"),  # type: ignore[arg-type]
        lambda: Features(storage="int4"),  # type: ignore[arg-type]
        lambda: Features(parameters="mlp"),
        lambda: Features(second_moment="adam"),  # type: ignore[arg-type]
    ],
)
def test_impossible_features_are_refused(make: object) -> None:
    with pytest.raises(InputError) as error:
        make()  # type: ignore[operator]
    assert "\n" not in str(error.value)
