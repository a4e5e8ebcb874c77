"""Several feature sets of one corpus, and views averaged over them, against explicit sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, MismatchError
from headwater.evidence.rankers import method_by_name
from headwater.index.feature_sets import add_features, in_order, open_set, set_names
from headwater.report.contents import contents
from headwater.training.checkpoint_features import add_checkpoints
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun
from models import Mlp, class_loss, class_margin, relative

CLOSE = 1e-5  # scores are float32
FULL = hw.Features(projection=None, storage="float32")
MARGINS = hw.Features(projection=None, storage="float32", output="margin")
RECIPE = Recipe(steps=9, batch_size=4, learning_rate=0.2, optimizer="sgd", checkpoints=3)
N = 17


def task(seed: int = 0) -> hw.Task:
    return hw.Task(Mlp(seed=seed).double(), class_loss, margin=class_margin)


def columns(n: int = N) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(N + 1, 6, dtype=torch.float64, generator=generator)
    return {"x": x[:n].numpy(), "y": (torch.arange(n) % 5).numpy()}


def corpus(n: int = N) -> hw.Corpus:
    return hw.Corpus.from_columns(columns(n), ids=[f"z{i}" for i in range(n)])


def query() -> hw.Query:
    return hw.Query(columns={name: values[-1] for name, values in columns(N + 1).items()})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    folder = tmp_path_factory.mktemp("run")
    return train(task(), corpus(), RECIPE, out=folder, progress=False)


def at(run: TrainingRun, number: int) -> hw.Task:
    made = task()
    run.checkpoints[number].load_into(made.model)
    return made


def gradient(one: hw.Task, batch: dict[str, Any], function: Any) -> torch.Tensor:
    """The gradient of the weights of the linear layers, flat."""
    weights = [m.weight for m in one.model.modules() if isinstance(m, torch.nn.Linear)]
    value = function(one.model, {k: torch.as_tensor(v)[None] for k, v in batch.items()})
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value.sum(), weights)])


def rows_of(one: hw.Task, function: Any) -> torch.Tensor:
    data = columns()
    each = [{"x": data["x"][i], "y": data["y"][i]} for i in range(N)]
    return torch.stack([gradient(one, batch, function) for batch in each])


def asked(one: hw.Task, function: Any) -> torch.Tensor:
    data = columns(N + 1)
    return gradient(one, {"x": data["x"][-1], "y": data["y"][-1]}, function)


def test_graddot_over_checkpoints_is_tracin(run: TrainingRun, tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), FULL)
    names = add_checkpoints(index, run, FULL)
    assert names == [c.path.name for c in run.checkpoints] == set_names(index)
    rates = [0.5, 0.3, 0.1]
    right = sum(
        rate * rows_of(at(run, i), class_loss) @ asked(at(run, i), class_loss)
        for i, rate in enumerate(rates)
    )
    method = hw.Ensemble(hw.GradDot(), names, rates)
    found = hw.scores(index, [query()], method=method)
    assert relative(found[0], right) < CLOSE


def test_trak_averages_its_two_factors_apart(run: TrainingRun, tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), None)
    add_checkpoints(index, run, MARGINS)
    damping = 0.1
    products, weights = [], []
    data = columns()
    batch = {k: torch.as_tensor(v) for k, v in data.items()}
    for i in range(3):
        one = at(run, i)
        phi, q = rows_of(one, class_margin), asked(one, class_margin)
        sizes = [m.weight.numel() for m in one.model.modules() if isinstance(m, torch.nn.Linear)]
        product = torch.zeros(N, dtype=torch.float64)
        for part, mine in zip(phi.split(sizes, dim=1), q.split(sizes), strict=True):
            r = part.T @ part / N
            r += damping * r.diagonal().mean() * torch.eye(len(r), dtype=torch.float64)
            product += part @ torch.linalg.solve(r, mine)
        products.append(product)
        weights.append(1 - torch.exp(-class_loss(one.model, batch)))
    right = sum(weights) / 3 * sum(products) / 3
    found = hw.scores(index, [query()], method=hw.Ensemble(hw.TRAK(damping)))
    assert relative(found[0], right.detach()) < CLOSE


def test_the_model_is_as_it_was(run: TrainingRun, tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), None)
    before = {k: v.clone() for k, v in index.task.model.state_dict().items()}
    add_checkpoints(index, run, FULL)
    hw.scores(index, [query()], method=hw.Ensemble(hw.GradCos()))
    after = index.task.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_sets_of_models_of_their_own(tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", task(0), corpus(), FULL)
    tasks = {"second": task(1)}
    add_features(index, "second", tasks["second"], FULL)
    found = hw.scores(
        index, [query()], method=hw.Ensemble(hw.GradDot(), ["own", "second"], [1, 1], tasks)
    )
    right = sum(rows_of(t, class_loss) @ asked(t, class_loss) for t in (task(0), task(1)))
    assert relative(found[0], right) < CLOSE
    with pytest.raises(MismatchError, match="task"):  # the weights must be the set's
        hw.scores(index, [query()], method=hw.Ensemble(hw.GradDot(), ["second"]))


def test_a_set_goes_on_where_it_stopped_and_grows(run: TrainingRun, tmp_path: Path) -> None:
    plan = hw.Plan(shard_rows=5)
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), FULL, plan)
    add_checkpoints(index, run, FULL)
    place = tmp_path / "index" / "feature_sets" / run.checkpoints[0].path.name / "features"
    times = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    lost = sorted(place.iterdir())[1]
    lost.unlink()
    add_checkpoints(index, run, FULL)
    now = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    assert [name for name in times if times[name] != now[name]] == [lost.name]
    index.append(hw.Corpus.from_columns(columns(3), ids=["a", "b", "c"]), plan)
    assert set_names(index) == []  # of an earlier state of the corpus
    assert not any(one["complete"] for one in contents(index.path)["feature_sets"])
    add_checkpoints(index, run, FULL)
    found = hw.scores(index, [query()], method=hw.Ensemble(hw.GradDot()))
    assert found.shape == (1, N + 3)
    np.testing.assert_allclose(found[0, N:], found[0, :3], rtol=1e-5)


class Scaled(torch.nn.Module):
    """A linear layer whose output is multiplied by a number that is no attributed weight."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.factor


def bad_at(which: int) -> Any:
    """A loss that is not finite for the examples with this mark."""

    def function(model: Any, batch: Any) -> torch.Tensor:
        value = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        return torch.where(batch["mark"] == which, torch.full_like(value, torch.nan), value)

    return function


@pytest.mark.parametrize("rows", [1, 2, None])
@pytest.mark.parametrize("marks", [[0, 1, 0, 0], [0, 1, 2, 0], [1, 0, 0, 2]])
@pytest.mark.parametrize("view", [hw.GradDot(), hw.GradCos()])
def test_a_document_that_a_set_left_out_has_no_score(
    tmp_path: Path, rows: int | None, marks: list[int], view: Any
) -> None:
    """Whatever shards that leaves without a document, and whichever are asked for."""
    generator = np.random.default_rng(0)
    data = {"x": generator.normal(size=(4, 3)), "y": np.array([0, 1, 1, 0]), "mark": marks}
    built = hw.Corpus.from_columns(data, ids=list("abcd"))
    plan = hw.Plan(skip_bad=True, shard_rows=rows)
    tasks = {n: hw.Task(Scaled(n + 0.5).double(), bad_at(n)) for n in (1, 2)}
    named = {f"s{n}": one for n, one in tasks.items()}
    index = hw.Index.build(None, tasks[1], built, None, plan)
    for name, one in named.items():
        add_features(index, name, one, FULL, plan)
    asked = hw.Query(columns={"x": data["x"][0], "y": 1, "mark": 0})

    def gradients(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        model = tasks[n].model
        each = []
        for x, y in [*zip(data["x"], data["y"], strict=True), (data["x"][0], 1)]:
            out = model(torch.as_tensor(x)[None])
            value = torch.nn.functional.cross_entropy(out, torch.tensor([int(y)]))
            each.append(torch.autograd.grad(value, model.layer.weight)[0].reshape(-1))
        g = torch.stack(each)
        return (g / g.norm(dim=1, keepdim=True) if view.name == "gradcos" else g).split([4, 1])

    right = torch.stack([g @ q[0] for g, q in map(gradients, (1, 2))]).mean(dim=0).numpy()
    right[np.array(marks) > 0] = np.nan
    method = hw.Ensemble(view, list(named), tasks=named)
    np.testing.assert_allclose(hw.scores(index, asked, method=method)[0], right, rtol=1e-5)
    for ids in ("b", "bc", "ad", "d"):
        found = hw.scores(index, asked, method=method, ids=list(ids))[0]
        among = [name in ids for name in "abcd"]
        np.testing.assert_allclose(found, np.where(among, right, np.nan), rtol=1e-5)


def test_damage_in_a_set_is_found(run: TrainingRun, tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), FULL)
    add_checkpoints(index, run, FULL)
    assert index.verify() == []
    name = run.checkpoints[1].path.name
    path = next((tmp_path / "index" / "feature_sets" / name / "features").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert index.verify() == [f"feature_sets/{name}/features/{path.name}"]


def test_bad_input_is_told(run: TrainingRun, tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", at(run, -1), corpus(), FULL)
    with pytest.raises(InputError, match="no feature sets"):
        hw.scores(index, [query()], method=hw.Ensemble(hw.GradDot()))
    with pytest.raises(InputError, match="no such feature set"):
        open_set(index, "nothing")
    with pytest.raises(InputError, match="No name for a feature set"):
        add_features(index, "../away")
    with pytest.raises(InputError, match="weights do not fit"):
        hw.Ensemble(hw.GradDot(), ["a", "b"], [1.0])
    with pytest.raises(InputError, match="Only views"):
        method_by_name("bm25-ensemble")
    with pytest.raises(InputError, match="told apart"):
        add_checkpoints(index, TrainingRun(()), FULL)
    with pytest.raises(InputError, match="the index itself holds"):
        add_features(index, "own", index.task, FULL)
    with pytest.raises(InputError, match="Only views"):
        hw.Ensemble(hw.EKFAC())  # type: ignore[arg-type]
    assert hw.Ensemble(hw.GradDot(), "own").members(index) == [("own", 1.0)]
    assert method_by_name("trak-ensemble").name == "trak-ensemble"


def test_names_sort_with_their_numbers() -> None:
    assert sorted(["checkpoint-1000", "checkpoint-900", "b"], key=in_order) == [
        "b",
        "checkpoint-900",
        "checkpoint-1000",
    ]
