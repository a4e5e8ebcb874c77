"""A general Task: columns into batches, one number per example, the model left as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.corpus.document import Document
from headwater.engine.errors import InputError, MismatchError
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from headwater.tasks.task import Chunk, Task, evaluating, model_fingerprint, unwrap
from models import Mlp, byte_tokenizer, class_loss, tiny_llama
from small_net import matrices, rows
from small_net import task as small_task


def chunk(**content: Any) -> Chunk:
    return Chunk(content, 0, 1)


def test_columns_are_stacked() -> None:
    task = Task(Mlp(), class_loss)
    document = Document("a", {"x": np.arange(6, dtype=np.float32), "y": np.int64(2)})
    (made,) = task.chunks(document)
    ((_, asked),) = task.query_chunks(Query(columns={"x": torch.ones(6), "y": 3}))
    batch = task.collate([made, asked])
    assert batch["x"].tolist() == [[0, 1, 2, 3, 4, 5], [1] * 6]
    assert batch["y"].tolist() == [2, 3]
    assert task.loss(batch).shape == (2,)
    assert torch.equal(task.measurement(batch), task.loss(batch))


def test_own_collate() -> None:
    def collate(contents: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(c["x"]) for c in contents)
        x = torch.zeros(len(contents), longest)
        for row, content in zip(x, contents, strict=True):
            row[: len(content["x"])] = torch.as_tensor(content["x"])
        return {"x": x}

    task = Task(Mlp(), class_loss, collate=collate)
    batch = task.collate([chunk(x=np.ones(2)), chunk(x=np.ones(3))])
    assert batch["x"].tolist() == [[1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(x=np.ones(2)), chunk(x=np.ones(3))],
        [chunk(x=np.ones(2)), chunk(z=np.ones(2))],
        [chunk(x="words")],
    ],
    ids=["shapes", "names", "strings"],
)
def test_columns_that_do_not_stack(chunks: list[Chunk]) -> None:
    with pytest.raises(InputError, match="do not stack") as error:
        Task(Mlp(), class_loss).collate(chunks)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "loss",
    [
        lambda model, batch: class_loss(model, batch).sum(),
        lambda model, batch: class_loss(model, batch)[:, None],
    ],
)
def test_a_loss_is_one_number_for_each_example(loss: Any) -> None:
    task = Task(Mlp(), loss)
    with pytest.raises(InputError, match=r"shape \[2\]") as error:
        task.loss(task.collate([chunk(x=np.ones(6, np.float32), y=np.int64(0))] * 2))
    assert "\n" not in str(error.value)


def test_what_a_task_lacks_is_said() -> None:
    batch = {"x": torch.ones(1, 6), "y": torch.zeros(1, dtype=torch.long)}
    with pytest.raises(InputError, match="no margin"):
        Task(Mlp(), class_loss).margin(batch)
    with pytest.raises(InputError, match="no loss"):
        Task(Mlp()).loss(batch)
    with pytest.raises(InputError, match="by columns"):
        Task(Mlp(), class_loss).query_chunks(Query("The", " cat"))


def test_an_error_in_the_loss_itself_passes_through() -> None:
    def broken(model: Any, batch: Any) -> Any:
        raise KeyError("x")  # which is there: a mistake of the loss's own

    with pytest.raises(KeyError):
        Task(Mlp(), broken).loss({"x": torch.ones(1, 6)})


def test_wrappers_are_taken_off() -> None:
    model = Mlp()
    wrapped = torch.nn.DataParallel(torch.compile(model))  # type: ignore[arg-type]
    assert unwrap(wrapped) is model
    assert Task(torch.compile(model), class_loss).model is model  # type: ignore[arg-type]
    holder = torch.nn.Module()
    holder.module = model
    assert unwrap(holder) is holder  # an attribute of that name is no wrapper
    assert CausalLM(torch.compile(tiny_llama()), byte_tokenizer()).head_module() == "lm_head"


def test_evaluating_restores_the_model_even_after_an_error() -> None:
    model = Mlp().train()
    model.layers[0].eval()
    model.layers[2].weight.requires_grad_(False)

    def fail() -> None:
        with evaluating(model):
            assert not any(m.training for m in model.modules())
            assert not any(p.requires_grad for p in model.parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert model.training
    assert not model.layers[0].training
    assert model.layers[2].training
    assert not model.layers[2].weight.requires_grad
    assert model.layers[0].weight.requires_grad


def test_fingerprint() -> None:
    model = Mlp()
    first = model_fingerprint(model)
    assert model_fingerprint(Mlp()) == first
    assert model_fingerprint(Mlp(seed=1)) != first
    assert model_fingerprint(model.to(torch.bfloat16)) != first
    with torch.no_grad():
        other = Mlp()
        other.layers[2].bias[3] += 1e-3
    assert model_fingerprint(other) != first


def test_a_contrast_of_columns_is_the_difference_of_two_measurements() -> None:
    data = rows(9)
    x, y = data["x"][8], int(data["y"][8])
    other = (y + 1) % 4
    query = hw.Query(columns={"x": x, "y": y}, instead_of={"y": other})
    corpus = hw.Corpus.from_columns(rows())
    features = hw.Features(projection=None, storage="float32")
    index = hw.Index.build(None, small_task(), corpus, features)
    right = []
    one, two = (matrices(small_task(), x, label) for label in (y, other))
    inputs = rows()
    for a, b in zip(inputs["x"], inputs["y"], strict=True):
        g = matrices(small_task(), a, b)
        total = 0.0
        for name in g:
            biased = name != "head.weight"
            cut = slice(None, -1) if biased else slice(None)
            total += float(((one[name] - two[name])[:, cut] * g[name][:, cut]).sum())
        right.append(total)
    np.testing.assert_allclose(
        hw.scores(index, query, method=hw.GradDot())[0], right, rtol=1e-5, atol=1e-6
    )
    assert "instead of another y" in query.describe()
    dda = hw.scores(index, query, method=hw.DDA(None, debias=False, denoise=False))
    assert np.isfinite(dda).all()


def test_a_contrast_names_columns_that_are_there() -> None:
    for other in ({"z": 1}, {}, "text"):
        with pytest.raises(InputError, match="names those that are different"):
            hw.Query(columns={"x": [1.0], "y": 0}, instead_of=other)


# -- fingerprints ----------------------------------------------------------------------------------


def evenly_spaced(model: torch.nn.Module) -> str:
    """The fingerprint as an index of earlier has it: every (numel // 4096)-th value."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tuple(value.shape)}|{value.dtype}".encode())
        values = value.flatten().tolist()[:: max(1, value.numel() // 4096)]
        digest.update(np.array(values, dtype=np.float32).tobytes())
    return digest.hexdigest()[:32]


def wide() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Linear(64, 4096, bias=False)


def test_every_column_of_a_matrix_is_in_the_fingerprint() -> None:
    model = wide()
    before = model_fingerprint(model)
    for column in range(64):
        with torch.no_grad():
            model.weight[:, column] += 1
        assert model_fingerprint(model) != before, column
        with torch.no_grad():
            model.weight[:, column] = wide().weight[:, column]
        assert model_fingerprint(model) == before
    kernels = torch.nn.Conv2d(8, 2048, 2)  # of 32 columns
    before = model_fingerprint(kernels)
    with torch.no_grad():
        kernels.weight[:, :, 1, 1] += 1
    assert model_fingerprint(kernels) != before


@pytest.mark.parametrize("shape", [(3, 5), (64, 64), (101, 200)])
def test_models_whose_columns_were_all_seen_keep_their_fingerprint(shape: tuple[int, int]) -> None:
    model = torch.nn.Linear(*shape)
    assert model_fingerprint(model) == evenly_spaced(model)


def test_an_index_with_a_fingerprint_of_earlier_can_be_opened(tmp_path: Path) -> None:
    def loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return model(batch["x"]).square().sum(dim=1)

    model = wide()
    corpus = hw.Corpus.from_columns({"x": np.ones((2, 64), dtype=np.float32)})
    index = hw.Index.build(tmp_path / "index", hw.Task(model, loss), corpus, None)
    whole = index.manifest["task"]["model"]
    path = tmp_path / "index" / "manifest.json"
    path.write_text(path.read_text().replace(whole, evenly_spaced(model)))
    opened = hw.Index.open(tmp_path / "index", hw.Task(model, loss))
    assert opened.manifest["task"]["model"] == evenly_spaced(model)
    other = wide()
    with torch.no_grad():
        other.weight += 1
    with pytest.raises(MismatchError, match="'model' differs"):
        hw.Index.open(tmp_path / "index", hw.Task(other, loss))
    path.write_text(path.read_text().replace(evenly_spaced(model), whole))
    with torch.no_grad():
        model.weight[:, 1:] += 1  # which the fingerprint of earlier did not see
    with pytest.raises(MismatchError, match="'model' differs"):
        hw.Index.open(tmp_path / "index", hw.Task(model, loss))
