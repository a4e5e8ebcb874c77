"""What must not matter does not: batch, padding, order, memory. What must be refused is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headwater.engine.errors import InputError, NumericError, ResourceError
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features, LayerBlocks, TwoSided
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from headwater.tasks.task import Chunk, Task
from models import (
    Mlp,
    brute_force,
    byte_tokenizer,
    class_loss,
    class_margin,
    naive_loss,
    relative,
    tiny_gpt2,
    tiny_llama,
    token_chunk,
)

CHUNKS = [token_chunk(n, seed=n) for n in (3, 17, 8, 11, 8, 30, 5)]


def gradients_of(make: Any = tiny_llama, dtype: Any = torch.float32, **features: Any) -> Gradients:
    return Gradients(CausalLM(make(dtype=dtype), byte_tokenizer()), Features(**features))


@pytest.mark.parametrize("projection", [None, TwoSided(4, 4), LayerBlocks(4, 4)])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_low_precision_models(make: Any, projection: Any) -> None:
    exact = gradients_of(make, parameters="all", projection=projection).batch(CHUNKS[:3])
    low = gradients_of(make, torch.bfloat16, parameters="all", projection=projection)
    made = low.batch(CHUNKS[:3])
    assert made.u.dtype == torch.float32
    assert relative(made.u, exact.u) < 0.1
    low.positions(CHUNKS[0], made.u[0].numpy())


@pytest.mark.parametrize("output", ["loss", "margin"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_autocast_is_near_and_leaves_the_weights_alone(make: Any, output: str) -> None:
    exact = gradients_of(make, parameters="all", output=output).batch(CHUNKS[:3])
    model = make(dtype=torch.float32)
    task = CausalLM(model, byte_tokenizer(), autocast=torch.bfloat16)
    low = Gradients(task, Features(parameters="all", output=output))
    made = low.batch(CHUNKS[:3])
    assert made.u.dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert 1e-5 < relative(made.u, exact.u) < 0.1
    assert task.describe()["dtype"] == "autocast"
    shares = low.positions(CHUNKS[0], made.u[0].numpy())
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("output", ["loss", "margin"])
@pytest.mark.parametrize("parameters", ["linear", "all"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_batch_padding_and_position_do_not_matter(make: Any, parameters: str, output: str) -> None:
    gradients = gradients_of(make, parameters=parameters, output=output)
    alone = torch.cat([gradients.batch([chunk]).u for chunk in CHUNKS])
    together = gradients.batch(CHUNKS).u
    turned = gradients.batch(CHUNKS[::-1]).u.flip(0)
    assert together.dtype == torch.float32
    for one, other, third in zip(alone, together, turned, strict=True):
        assert relative(other, one) < 1e-5
        assert relative(third, one) < 1e-5


def test_the_order_of_first_use_does_not_matter() -> None:
    forward, backward = gradients_of(), gradients_of()
    first = forward.batch(CHUNKS[:3]).u
    backward.batch(CHUNKS[5:])
    assert torch.equal(backward.batch(CHUNKS[:3]).u, first)


def test_layers_with_the_same_input_are_found() -> None:
    gradients = gradients_of()
    gradients.batch(CHUNKS[:1])
    groups = {tuple(n.split(".")[-1] for n in g) for g in gradients.capture._sharing.values()}
    assert groups == {("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")}


def test_stream_covers_every_chunk_once_under_the_budget() -> None:
    gradients = gradients_of()
    seen: list[int] = []
    for part, made in gradients.stream(CHUNKS, 32):
        assert len(part) * max(CHUNKS[i].length for i in part) <= 32
        assert relative(made.u[-1], gradients.batch([CHUNKS[part[-1]]]).u[0]) < 1e-5
        seen += part
    assert sorted(seen) == list(range(len(CHUNKS)))
    assert gradients.budget_used == 32


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("out"), MemoryError(), RuntimeError("can't allocate memory")]
)
def test_running_out_of_memory_halves_the_budget(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients = gradients_of()
    expected = torch.cat([gradients.batch([chunk]).u for chunk in CHUNKS])
    original = Gradients.batch

    def limited(self: Gradients, chunks: Any, role: Any = "example") -> Any:
        if len(chunks) * max(chunk.length for chunk in chunks) > 40:
            raise error
        return original(self, chunks, role)

    monkeypatch.setattr(Gradients, "batch", limited)
    found: dict[int, torch.Tensor] = {}
    for part, made in gradients.stream(CHUNKS, 128):
        for index, u in zip(part, made.u, strict=True):
            assert index not in found
            found[index] = u
    assert relative(torch.stack([found[i] for i in range(len(CHUNKS))]), expected) < 1e-5
    assert gradients.budget_used == 32


def test_out_of_memory_on_one_chunk_is_said_and_other_errors_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gradients = gradients_of()

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Gradients, "batch", never)
    with pytest.raises(ResourceError, match="single chunk of 30 tokens"):
        list(gradients.stream(CHUNKS, 64))
    monkeypatch.setattr(Gradients, "batch", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(gradients.stream(CHUNKS, 64))


def test_margin_features_of_a_language_model() -> None:
    gradients = gradients_of(dtype=torch.float64, output="margin", projection=None)
    model = gradients.task.model
    chunks = [*CHUNKS[:2], token_chunk(6, hidden=(0, 1, 2, 4, 5))]  # the last has one label
    made = gradients.batch(chunks)
    assert made.weight is not None
    for u, weight, chunk in zip(made.u, made.weight, chunks, strict=True):
        ids = torch.as_tensor(chunk.content["input_ids"]).long()
        p = model(input_ids=ids[None]).logits[0, :-1].softmax(dim=1)
        p = p[torch.arange(len(ids) - 1), ids[1:]]
        p = p[torch.as_tensor(chunk.content["labels"][1:]) != -100]
        by_name = brute_force(model, -torch.log(p / (1 - p)).sum())
        flat = torch.cat([by_name[name].flatten() for name in gradients.layout.places])
        assert relative(u, flat) < 1e-9
        assert float(weight) == pytest.approx(float((1 - p).mean().detach()), rel=1e-9)


def test_margin_needs_no_loss() -> None:
    task = Task(Mlp(), margin=class_margin)
    gradients = Gradients(task, Features(output="margin"))
    rng = np.random.default_rng(0)
    x = rng.normal(size=6).astype(np.float32)
    made = gradients.batch([Chunk({"x": x, "y": np.int64(2)}, 0, 1)])
    p = task.model(torch.from_numpy(x)[None]).softmax(dim=1)[0, 2]
    assert float(made.loss[0]) == pytest.approx(-float(torch.log(p / (1 - p)).detach()), rel=1e-5)
    assert float(made.weight[0]) == pytest.approx(1 - float(p.detach()), rel=1e-5)  # type: ignore[index]


# -- queries --------------------------------------------------------------------------------


def test_queries_are_weighted_sums_of_measurements() -> None:
    gradients = gradients_of(dtype=torch.float64, projection=TwoSided(4, 4))
    one = Query("The capital of Peru is", " Lima")
    other = Query("The capital of Peru is", " Quito")
    both = Query("The capital of Peru is", " Lima", instead_of=" Quito")
    rows = gradients.queries([one, other, both, Query.mean([one, other]), one], 64)
    assert rows.dtype == np.float32
    assert relative(rows[2], rows[0] - rows[1]) < 1e-5
    assert relative(rows[3], (rows[0] + rows[1]) / 2) < 1e-6
    assert np.array_equal(rows[4], rows[0])


def test_a_measurement_of_its_own_is_used_for_queries_only() -> None:
    def doubled(model: Any, batch: Any) -> Any:
        return 2 * class_loss(model, batch)

    task = Task(Mlp(), class_loss, measurement=doubled)
    gradients = Gradients(task, Features(projection=None))
    values = {"x": np.ones(6, np.float32), "y": np.int64(1)}
    example = gradients.batch([Chunk(values, 0, 1)]).u[0]
    query = gradients.queries([Query(columns=values)], 8)[0]
    assert relative(query, 2 * example) < 1e-6


def test_positions_add_up_to_the_inner_product() -> None:
    for projection in (None, TwoSided(4, 4), LayerBlocks(4, 4)):
        for make in (tiny_llama, tiny_gpt2):
            gradients = gradients_of(make, torch.float64, projection=projection)
            chunk = token_chunk(10, seed=4, hidden=(0, 1, 2))
            u = gradients.batch([chunk]).u[0].numpy()
            v = np.random.default_rng(1).normal(size=gradients.layout.size).astype(np.float32)
            shares = gradients.positions(chunk, v)
            assert shares.shape == (10,)
            scale = np.linalg.norm(u) * np.linalg.norm(v)
            assert abs(shares.sum() - u @ v) < 1e-6 * scale
            assert shares[-1] == 0  # nothing is predicted from the last token
            assert (shares[:-1] != 0).all()


def test_positions_with_embeddings_and_biases_leave_out_only_norms() -> None:
    gradients = gradients_of(tiny_gpt2, torch.float64, parameters="all", projection=TwoSided(4, 4))
    chunk = token_chunk(9, seed=5)
    u = gradients.batch([chunk]).u[0].numpy()
    v = np.random.default_rng(1).normal(size=gradients.layout.size).astype(np.float32)
    for name, place in gradients.layout.places.items():
        if ".ln_" in name:
            v[place.block.part] = 0
    assert gradients.positions(chunk, v).sum() == pytest.approx(float(u @ v), rel=1e-5)


def test_positions_of_a_layer_with_one_input() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Tanh(), torch.nn.Linear(4, 5))
    gradients = Gradients(Task(net.double(), class_loss), Features(projection=None))
    chunk = Chunk({"x": np.array([0.7]), "y": np.int64(1)}, 0, 1)
    v = np.random.default_rng(1).normal(size=gradients.layout.size).astype(np.float32)
    u = gradients.batch([chunk]).u[0].numpy()
    assert gradients.positions(chunk, v).sum() == pytest.approx(float(u @ v), rel=1e-6)


# -- what is refused ------------------------------------------------------------------------


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text


def test_the_tied_head_is_refused_as_a_module_of_its_own() -> None:
    with pytest.raises(InputError, match=r"tied to model\.embed_tokens\.weight") as error:
        gradients_of(parameters=lambda name, module: name == "lm_head")
    assert "parameters='all'" in one_line(error.value)


def test_nothing_to_attribute() -> None:
    with pytest.raises(InputError, match="No parameter") as error:
        gradients_of(parameters=lambda name, module: False)
    one_line(error.value)
    with pytest.raises(InputError, match="No parameter"):
        Gradients(Task(torch.nn.LayerNorm(3), class_loss), Features())


class Experts(torch.nn.Module):
    """The tokens marked in x go through an expert, those of all examples in one list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.expert = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.out = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.first(x)
        chosen = (x.reshape(-1, 6)[:, 0] > 0).nonzero()[:, 0]
        flat = hidden.reshape(-1, 6)
        flat = flat.index_add(0, chosen, self.expert(flat[chosen]))
        return self.out(flat.reshape(hidden.shape).sum(dim=1))


@pytest.mark.parametrize("marked", [(4, 4, 3, 1), (3, 1, 2, 2), (2, 0, 1, 1), (1, 2, 1, 1)])
def test_a_layer_that_mixes_examples_is_refused_whatever_the_shapes(marked: Any) -> None:
    # 12, 8 and 4 rows reach the expert, multiples of the 4 examples; then 5, which are none
    task = Task(Experts().eval(), class_loss)
    x = np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float32)
    for row, count in zip(x, marked, strict=True):
        row[:, 0] = np.where(np.arange(4) < count, 1, -1)
    chunks = [Chunk({"x": row, "y": np.int64(i)}, 0, 1) for i, row in enumerate(x)]
    with pytest.raises(InputError, match="does not keep examples apart") as error:
        list(Gradients(task, Features()).stream(chunks, 4))
    one_line(error.value)
    rest = Features(parameters=lambda name, module: name == "out", projection=None)
    assert len(list(Gradients(task, rest).stream(chunks, 4))) == 1


def test_tokens_before_examples_are_refused() -> None:
    class TokensFirst(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.out = torch.nn.Linear(6, 6), torch.nn.Linear(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.tanh(self.one(x.transpose(0, 1))).sum(dim=0))

    task = Task(TokensFirst(), class_loss)
    for tokens in (3, 4):
        x = np.random.default_rng(0).normal(size=(3, tokens, 6)).astype(np.float32)
        chunks = [Chunk({"x": row, "y": np.int64(1)}, 0, 1) for row in x]
        with pytest.raises(InputError, match="does not keep examples apart"):
            list(Gradients(task, Features()).stream(chunks, 3))


def test_a_loss_without_a_graph_is_refused() -> None:
    def detached(model: Any, batch: Any) -> Any:
        return class_loss(model, batch).detach()

    chunk = Chunk({"x": np.ones(6, np.float32), "y": np.int64(1)}, 0, 1)
    with pytest.raises(InputError, match="does not depend on the attributed parameters") as error:
        Gradients(Task(Mlp(), detached), Features()).batch([chunk])
    one_line(error.value)


def test_a_module_that_is_never_called_is_named(caplog: pytest.LogCaptureFixture) -> None:
    net = torch.nn.Module()
    net.used, net.idle = torch.nn.Linear(6, 5), torch.nn.Linear(6, 5)
    task = Task(net, lambda model, batch: class_loss(model.used, batch))
    gradients = Gradients(task, Features(projection=None))
    u = gradients.batch([Chunk({"x": np.ones(6, np.float32), "y": np.int64(1)}, 0, 1)]).u[0]
    assert not u[gradients.layout.places["idle.weight"].block.part].any()
    assert u.any()
    assert "idle" in task.notes[0]
    assert "idle" in caplog.text


def test_modules_with_several_inputs_are_refused_by_name() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = torch.nn.Bilinear(6, 6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(x, x)

    chunk = Chunk({"x": np.ones(6, np.float32), "y": np.int64(1)}, 0, 1)
    with pytest.raises(InputError, match=r"Module mix \(Bilinear\)") as error:
        Gradients(Task(Net(), class_loss), Features(parameters="all")).batch([chunk])
    one_line(error.value)


def test_a_query_whose_gradient_is_not_finite_is_named() -> None:
    gradients = gradients_of()
    with torch.no_grad():
        gradients.task.model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(NumericError, match="Lima") as error:
        gradients.queries([Query("The capital of Peru is", " Lima")], 64)
    one_line(error.value)


def test_loss_of_an_example_comes_with_its_gradient() -> None:
    gradients = gradients_of(dtype=torch.float64)
    made = gradients.batch(CHUNKS[:2])
    right = [float(naive_loss(gradients.task.model, chunk).detach()) for chunk in CHUNKS[:2]]
    assert made.loss.tolist() == pytest.approx(right, rel=1e-10)
    assert made.weight is None
