"""What is damaged is named, and built again alone; what is not an index is refused in one line."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import (
    Given,
    flip,
    given_corpus,
    given_index,
    given_query,
    times,
    tree,
    vectors,
)

import headwater as hw
from headwater.engine.errors import DamageError, HeadwaterError, InputError, MismatchError
from headwater.index.mapped import map_tensors

U = vectors(14)
QUERY = given_query(vectors(1, seed=2)[0])


def build(folder: Path) -> hw.Index:
    return given_index(folder, U, shard_rows=4, storage="int8")


@pytest.fixture(scope="module")
def whole_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build(tmp_path_factory.mktemp("whole") / "index").path


@pytest.fixture
def folder(tmp_path: Path, whole_index: Path) -> Path:
    return Path(shutil.copytree(whole_index, tmp_path / "index"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lost(path: Path) -> None:
    path.unlink()


def garbled(path: Path) -> None:
    flip(path, 0.01)  # in the header


DAMAGES = [flip, cut, empty, lost, garbled]
Damage = Callable[[Path], None]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "features/00001.safetensors",
        "corpus/00002.parquet",
        "statistics/calibration.safetensors",
        "statistics/autocorrelation.safetensors",
    ],
)
def test_what_is_damaged_is_listed_and_built_again(
    folder: Path, name: str, damage: Damage, caplog: pytest.LogCaptureFixture
) -> None:
    whole, stamps = tree(folder), times(folder)
    damage(folder / name)
    assert hw.Index.open(folder).verify() == [name]
    with caplog.at_level(logging.WARNING):
        index = build(folder)
    stem = Path(name).stem
    assert stem in caplog.text
    assert tree(folder) == whole
    assert index.verify() == []
    again = {n for n, when in times(folder).items() if when != stamps[n]}
    if "autocorrelation" in name:  # every shard has its share in it
        assert again == {n for n in whole if n.startswith(("features", "done"))} | {
            name,
            "manifest.json",
        }
    else:
        assert again - {name} <= {f"done/{stem}.json"}


@pytest.mark.parametrize("damage", [cut, empty, lost, garbled])
def test_scores_of_a_damaged_shard_name_it(folder: Path, damage: Damage) -> None:
    damage(folder / "features" / "00001.safetensors")
    index = hw.Index.open(folder, Given())
    with pytest.raises(DamageError, match=r"00001.*only"):
        hw.scores(index, QUERY, method=hw.GradDot())


def test_two_damaged_shards_at_once(folder: Path) -> None:
    whole = tree(folder)
    for number in (0, 3):
        flip(folder / "features" / f"0000{number}.safetensors")
        flip(folder / "corpus" / f"0000{number}.parquet")
    assert len(hw.Index.open(folder).verify()) == 4
    build(folder)
    assert tree(folder) == whole


@pytest.mark.parametrize("damage", [cut, lost])
def test_reading_a_damaged_corpus_names_the_file(folder: Path, damage: Damage) -> None:
    damage(folder / "corpus" / "00002.parquet")
    index = hw.Index.open(folder)
    with pytest.raises(DamageError, match=r"00002\.parquet"):
        _ = index.ids
    assert index.documents([0])[0].id == "e0000"
    with pytest.raises(DamageError, match=r"00002\.parquet"):
        index.documents([9])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["done/00001.json", "corpus/summary.json"])
def test_damaged_small_files_are_written_again(folder: Path, name: str, damage: Damage) -> None:
    whole = tree(folder)
    damage(folder / name)
    build(folder)
    found = tree(folder)
    if damage is flip and name == "corpus/summary.json":  # still JSON perhaps: only read for a list
        found[name] = whole[name]
    assert found == whole


def test_a_corpus_that_cannot_be_made_again_is_kept_as_it_is(folder: Path) -> None:
    """The damaged shard came from another corpus than the one that is given."""
    index = hw.Index.open(folder, Given())
    index.append(given_corpus(vectors(3, seed=1), "new"))
    flip(folder / "corpus" / "00004.parquet")
    before = tree(folder)
    with pytest.raises(DamageError, match=r"00004\.parquet.*corpus that these came from"):
        build(folder)
    assert tree(folder) == before
    features = hw.Features(projection=None, storage="int8")
    hw.Index.build(folder, Given(), given_corpus(vectors(3, seed=1), "new"), features)
    assert hw.Index.open(folder).verify() == []
    with pytest.raises(MismatchError, match="another corpus"):
        hw.Index.build(folder, Given(), given_corpus(vectors(3, seed=5), "new"), features)


def test_a_calibration_of_an_appended_index_is_made_from_the_first_part(folder: Path) -> None:
    hw.Index.open(folder, Given()).append(given_corpus(vectors(40, seed=1), "new"))
    whole = tree(folder)
    flip(folder / "statistics" / "calibration.safetensors")
    build(folder)
    assert tree(folder) == whole


def test_damage_while_half_built(tmp_path: Path) -> None:
    """Worker 1's shards are not there yet; worker 0's first one is damaged, and its sums lost."""
    whole = tree(build(tmp_path / "whole").path)
    folder = tmp_path / "half"
    given_index(folder, U, shard_rows=4, storage="int8", worker=(0, 2))
    flip(folder / "features" / "00000.safetensors")
    (folder / "statistics" / "shard-00002.safetensors").unlink()
    build(folder)
    assert tree(folder) == whole


# -- manifests -----------------------------------------------------------------------------------


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"index"', "{}", '{"format": "1"}', "\x00"])
def test_a_manifest_that_is_none(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    for use in (hw.Index.open, build):
        with pytest.raises(DamageError, match=r"manifest\.json"):
            use(folder)


@pytest.mark.parametrize("name", ["task", "features", "layout", "corpus", "shards", "complete"])
def test_a_manifest_that_lacks_something(folder: Path, name: str) -> None:
    rewrite(folder, lambda manifest: manifest.pop(name))
    with pytest.raises(DamageError, match=f"'{name}'"):
        hw.Index.open(folder)


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no index.*manifest\.json.*another folder"):
        hw.Index.open(tmp_path)
    with pytest.raises(InputError, match=r"no index.*nothing"):
        hw.Index.open(tmp_path / "missing")


def test_a_newer_format_is_not_touched(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(format=2))
    before = tree(folder)
    for use in (hw.Index.open, build):
        with pytest.raises(MismatchError, match=r"newer format.*format 1.*format 2.*[Uu]pdate"):
            use(folder)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "name", ["../../secret", "/etc/passwd", "..", "00000/../../x", "", None, 3]
)
@pytest.mark.parametrize("place", ["corpus", "shards"])
def test_a_manifest_cannot_lead_outside(folder: Path, name: Any, place: str) -> None:
    secret = folder.parent.parent / "secret.safetensors"
    secret.write_bytes((folder / "features" / "00000.safetensors").read_bytes())

    def lead(manifest: dict[str, Any]) -> None:
        shards = manifest["corpus"]["shards"] if place == "corpus" else manifest["shards"]
        shards[1]["name"] = name

    rewrite(folder, lead)
    for use in (hw.Index.open, build):
        with pytest.raises(DamageError, match="inside the index's folder"):
            use(folder)
    assert secret.exists()


def test_every_failure_is_one_line(folder: Path) -> None:
    (folder / "manifest.json").write_text("{\n  broken")
    with pytest.raises(HeadwaterError) as caught:
        hw.Index.open(folder)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


# -- tensors in a file ---------------------------------------------------------------------------


def test_mapped_tensors_are_those_that_were_saved(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    made = {
        "a": torch.arange(-6, 6, dtype=torch.int8).view(3, 4),
        "b": torch.randn(5).half(),
        "c": torch.randn(2, 1, 2),
        "d": torch.randn(1, dtype=torch.float64),
        "e": torch.tensor([[2**31 - 1]], dtype=torch.int32),
        "f": torch.tensor([-(2**60)]),
        "none": torch.zeros((0, 7)),
    }
    save_file(made, tmp_path / "x.safetensors", metadata={"by": "hand"})
    found = map_tensors(tmp_path / "x.safetensors")
    assert found.keys() == made.keys()
    for name, value in made.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_writing_to_a_mapped_tensor_leaves_the_file(folder: Path) -> None:
    path = folder / "features" / "00000.safetensors"
    before = path.read_bytes()
    map_tensors(path)["document"].fill_(9)
    assert path.read_bytes() == before


@pytest.mark.parametrize("seed", range(20))
def test_a_garbled_file_never_breaks_the_reader(tmp_path: Path, folder: Path, seed: int) -> None:
    """Bytes of the header changed at random: an error of ours, or tensors that lie in the file."""
    data = bytearray((folder / "features" / "00000.safetensors").read_bytes())
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, 300, 3):
        data[at] = int(rng.integers(0, 256))
    path = tmp_path / "x.safetensors"
    path.write_bytes(bytes(data))
    try:
        tensors = map_tensors(path)
    except DamageError:
        return
    assert all(t.double().sum().dim() == 0 for t in tensors.values())
