"""Data sets of the `datasets` package: saved folders for real, the hub through a stand-in."""

import sys

import pytest

from headwater.corpus import Corpus
from headwater.engine.errors import InputError

datasets = pytest.importorskip("datasets")


def rows(prefix: str):
    return datasets.Dataset.from_dict({"text": [f"{prefix}{n}" for n in range(3)], "n": [1, 2, 3]})


def texts(corpus):
    return [document.content["text"] for document in corpus.documents()]


def test_a_saved_data_set(tmp_path):
    rows("a").select([2, 0]).with_format("numpy").save_to_disk(tmp_path / "d")
    corpus = Corpus.open(tmp_path / "d", columns={"label": "n"})
    assert texts(corpus) == ["a2", "a0"]
    assert texts(corpus) == ["a2", "a0"]
    labels = [document.metadata["label"] for document in corpus.documents()]
    assert labels == [3, 1]
    assert all(type(label) is int for label in labels)
    assert corpus.describe()["sources"][0]["name"] == str(tmp_path / "d")


def test_saved_splits(tmp_path):
    both = datasets.DatasetDict({"dev": rows("d"), "test": rows("t")})
    both.save_to_disk(tmp_path / "d")
    with pytest.raises(InputError, match=r"several splits; expected .*/SPLIT; found dev, test"):
        Corpus.open(tmp_path / "d")
    assert texts(Corpus.open(tmp_path / "d" / "test"))[0] == "t0"
    datasets.DatasetDict({"only": rows("o")}).save_to_disk(tmp_path / "one")
    assert texts(Corpus.open(tmp_path / "one"))[0] == "o0"
    datasets.DatasetDict({"test": rows("t"), "train": rows("r")}).save_to_disk(tmp_path / "two")
    assert texts(Corpus.open(tmp_path / "two"))[0] == "r0"


def test_a_damaged_saved_data_set(tmp_path):
    rows("a").save_to_disk(tmp_path / "d")
    for file in (tmp_path / "d").glob("*.arrow"):
        file.unlink()
    with pytest.raises(InputError, match="expected a folder written by save_to_disk"):
        Corpus.open(tmp_path / "d")


@pytest.fixture
def hub(monkeypatch):
    calls = []

    def load_dataset(path, name=None, *, split=None, streaming=False):
        calls.append((path, name, split, streaming))
        if path == "missing":
            raise FileNotFoundError("no such data set\nmore")
        found = datasets.IterableDatasetDict(
            {"train": rows("a").to_iterable_dataset(), "test": rows("b").to_iterable_dataset()}
        )
        return found[split] if split else found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_hub_names(hub):
    assert texts(Corpus.open("hf://some/thing")) == ["a0", "a1", "a2"]
    assert texts(Corpus.open("hf://thing:test")) == ["b0", "b1", "b2"]
    assert texts(Corpus.open("hf://some/thing/small:test")) == ["b0", "b1", "b2"]
    assert hub == [
        ("some/thing", None, None, True),
        ("thing", None, "test", True),
        ("some/thing", "small", "test", True),
    ]


def test_hub_failures(hub):
    with pytest.raises(InputError, match=r"hf://missing cannot be opened; .*no such data set$"):
        Corpus.open("hf://missing")
    with pytest.raises(InputError, match="not a data set's name"):
        Corpus.open("hf://a/b/c/d")


def test_a_stream_that_breaks_off(monkeypatch):
    def generate():
        yield {"text": "a"}
        raise ConnectionError("gone")

    stream = datasets.IterableDataset.from_generator(generate)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: stream)
    with pytest.raises(InputError, match=r"cannot be read on after row 1; found .*gone"):
        Corpus.open("hf://thing", skip_bad=True)


def test_without_the_package(monkeypatch, tmp_path):
    rows("a").save_to_disk(tmp_path / "d")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in ("hf://some/thing", tmp_path / "d"):
        with pytest.raises(InputError, match=r"pip install headwater\[hub\]"):
            Corpus.open(source)
