"""Counts, places and matches of phrases against naive search; files that are killed or damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
import headwater.evidence.phrases as phrases
import headwater.evidence.shard as shard
import headwater.evidence.token_store as token_store
import headwater.evidence.verbatim as module
import headwater.index.store as store
from headwater.engine.errors import DamageError, InputError
from headwater.engine.files import write_atomic
from headwater.evidence.shard import Match
from headwater.evidence.token_store import build_cost, token_type
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from models import SENTENCES, byte_tokenizer
from phrase_models import (
    check,
    letters,
    naive_find,
    naive_longest,
    text_index,
    token_index,
    wide,
)

DOCUMENTS = [[0, 1, 0, 1, 2], [1, 2], [3], [0, 1, 2, 0], [2, 2, 2, 2]]
TEXTS = [*SENTENCES, "Café Lima: 🙂🙃 Peru, naïve.", "the capital of Peru", "the capital of Peru"]


def byte_level() -> TextTokenizer:
    return TextTokenizer.from_json(byte_tokenizer().backend_tokenizer.to_str(), "bytes")


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix != ".lock"}


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=10),
    st.sampled_from([1, 7, 1000]),
)
@settings(max_examples=25, deadline=None)
def test_equals_naive_search(documents, query, shard_tokens):
    verbatim = Verbatim.open(token_index(documents), letters(), shard_tokens=shard_tokens)
    check(verbatim, documents, query)
    assert verbatim.tokens == sum(map(len, documents))
    assert len(verbatim) == len(documents)


@pytest.mark.parametrize("shard_tokens", [40, 10**6])
@pytest.mark.parametrize("name", ["bytes", "words"])
def test_equals_naive_search_on_text(name, shard_tokens):
    index = text_index(TEXTS)
    tokenizer = byte_level() if name == "bytes" else None
    verbatim = Verbatim.open(index, tokenizer, shard_tokens=shard_tokens)
    assert (len(verbatim.shards) > 2) == (shard_tokens == 40)
    assert verbatim.describe()["tokenizer"]["name"] == name
    documents = [verbatim.tokenizer.encode(text).ids.tolist() for text in TEXTS]
    for position, ids in enumerate(documents):
        assert verbatim.document_tokens(position).tolist() == ids
    check(
        verbatim, documents, verbatim.tokenizer.encode(" capital of Peru, and Quito").ids.tolist()
    )
    check(verbatim, documents, verbatim.tokenizer.encode("é Lima: 🙂🙃 Peru").ids.tolist())
    every = np.concatenate(documents).astype(int)
    counts = np.bincount(every, minlength=verbatim.tokenizer.vocabulary)
    assert verbatim.unigrams.tolist() == counts.tolist()
    assert verbatim.next_tokens([]) == {i: int(n) for i, n in enumerate(counts) if n}


def test_wide_ids_take_four_bytes():
    documents = [[70000, 1, 65535], [65534, 70000, 1], [1, 256]]
    verbatim = Verbatim.open(token_index(documents), wide(70001))
    assert verbatim.shards[0].suffixes.width == 4
    check(verbatim, documents, [65534, 70000, 1, 65535])


def test_two_bytes_hold_the_ids_and_the_separator():
    assert token_type(65535).itemsize == 2  # ids to 65534, and 65535 between documents
    assert token_type(65536).itemsize == 4
    narrow = Verbatim.open(token_index([[65534, 1]]), wide(65535))
    assert narrow.shards[0].suffixes.width == 2
    assert narrow.count([65534]) == 1


def test_no_match_crosses_documents():
    verbatim = Verbatim.open(token_index([[1, 2], [3, 4]]), letters())
    assert verbatim.count([2, 3]) == 0
    assert verbatim.longest_matches([1, 2, 3, 4]).tolist() == [2, 1, 2, 1]
    assert verbatim.next_tokens([2]) == {}


def test_characters_are_exact():
    verbatim = Verbatim.open(text_index(TEXTS), byte_level())
    for phrase in (" Peru", "é Lima", "🙂", "🙃 Peru", " naïve", " Lima: "):
        ids = verbatim.tokenizer.encode(phrase).ids
        found = verbatim.find(ids)
        assert found
        for match in found:
            start, end = verbatim.locate(match, len(ids))
            assert TEXTS[match.position][start:end] == phrase
    # From the second byte of a character to the first of another: both count whole.
    ids = verbatim.tokenizer.encode("🙂🙃").ids
    position = TEXTS.index("Café Lima: 🙂🙃 Peru, naïve.")
    [match] = verbatim.find(ids[1:-1])
    assert match.position == position
    start, end = verbatim.locate(match, len(ids) - 2)
    assert TEXTS[position][start:end] == "🙂🙃"


def test_characters_of_documents_that_came_as_tokens():
    tokenizer = byte_level()
    documents = [tokenizer.encode(text).ids.tolist() for text in TEXTS]
    verbatim = Verbatim.open(token_index(documents), tokenizer)
    for position, text in enumerate(TEXTS):
        offsets = tokenizer.encode(text).offsets
        characters = verbatim.characters(position)
        assert characters.text == text
        for first in range(len(offsets)):
            for size in (1, 3):
                part = offsets[first : first + size]
                found = verbatim.locate(Match(position, first), size)
                assert found == (part[0, 0], part[-1, 1])


def test_text_is_counted_after_a_space_and_at_the_start():
    for tokenizer in (byte_level(), None):
        verbatim = Verbatim.open(text_index(TEXTS), tokenizer)
        assert verbatim.count_text("the capital of Peru") == 3
        assert [match.position for match in verbatim.find_text("Lima")] == [0, 1, 5]
        assert verbatim.find_text("Lima", limit=1) == verbatim.find_text("Lima")[:1]
        assert verbatim.count_text("Quito in Peru") == 0


def test_scripts_without_spaces_have_a_word_for_each_character():
    verbatim = Verbatim.open(text_index(["我在北京住。", "北京", "กรุงเทพ", "東京 tower"]))
    assert [verbatim.count_text(t) for t in ("北京", "京", "在北", "เทพ", "東京 tower")] == [
        2,
        3,
        1,
        1,
        1,
    ]
    assert r"|\\s+" in verbatim.tokenizer.json
    assert r" ?\\w+" not in verbatim.tokenizer.json  # stores of the old words are not taken over
    assert verbatim.tokenizer.decode(verbatim.document_tokens(0)) == "我在北京住。"


def test_a_folder_is_opened(tmp_path):
    text_index(["a red fox"], tmp_path / "index")
    assert Verbatim.open(tmp_path / "index").count_text("fox") == 1
    assert Verbatim.open(str(tmp_path / "index")).count_text("fox") == 1
    with pytest.raises(InputError, match="an Index, or the folder of one"):
        Verbatim.open(5)  # pyright: ignore


def test_numbers_and_masks_that_cannot_be():
    verbatim = Verbatim.open(token_index(DOCUMENTS), letters())
    for ask in (lambda n: verbatim.sample([1], n), lambda n: verbatim.find([1], n)):
        with pytest.raises(InputError, match="0 or more"):
            ask(-1)
    with pytest.raises(InputError, match="0 or more"):
        verbatim.find_text("a", -1)
    for mask in ([True], np.ones(5), np.ones((5, 1), dtype=bool)):
        for ask in (verbatim.count, verbatim.longest_matches):
            with pytest.raises(InputError, match=r"bool \[5\]"):
                ask([1], among=mask)
        with pytest.raises(InputError, match=r"bool \[5\]"):
            verbatim.count_text("a", mask)
    assert verbatim.count([1], [True] * 5) == verbatim.count([1])  # pyright: ignore


def test_a_sample_is_of_the_occurrences_and_no_matter_of_shards(monkeypatch):
    documents = [[1, 2], [1, 1], [2, 1], [1, 3]] * 5
    whole = Verbatim.open(token_index(documents), letters())
    parts = Verbatim.open(token_index(documents), letters(), shard_tokens=9)
    assert whole.sample([1], 100) == whole.find([1])
    assert whole.sample([1], 4, seed=1) == parts.sample([1], 4, seed=1)
    assert len({tuple(whole.sample([1], 4, seed=seed)) for seed in range(9)}) > 3
    monkeypatch.setattr(phrases, "SAMPLE_IN_ORDER", 3)
    by_rank = parts.sample([1], 4, seed=1)
    assert len(set(by_rank)) == 4
    assert set(by_rank) <= set(parts.find([1]))


@pytest.mark.parametrize("limit", [phrases.SAMPLE_IN_ORDER, 3])
def test_a_sample_makes_only_what_it_gives(monkeypatch, limit):
    documents = [[1, 2], [1, 1], [2, 1], [1, 3]] * 5
    parts = Verbatim.open(token_index(documents), letters(), shard_tokens=9)
    every = parts.find([1])
    drawn = np.sort(np.random.default_rng(7).choice(len(every), 4, replace=False))
    made = []
    monkeypatch.setattr(shard, "Match", lambda *pair: made.append(pair) or Match(*pair))
    monkeypatch.setattr(phrases, "SAMPLE_IN_ORDER", limit)
    found = parts.sample([1], 4, seed=7)
    assert len(made) == len(found) == 4
    if limit > 3:
        assert found == [every[number] for number in drawn]


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=6),
    st.lists(st.integers(0, 3), min_size=1, max_size=10),
    st.lists(st.booleans(), min_size=6, max_size=6),
    st.sampled_from([7, 1000]),
)
@settings(max_examples=40, deadline=None)
def test_chosen_documents_are_searched_as_if_they_were_the_corpus(
    documents, query, chosen, shard_tokens
):
    """A read of two occurrences at a time crosses blocks; an order of suffixes those of shards."""
    verbatim = Verbatim.open(token_index(documents), letters(), shard_tokens=shard_tokens)
    among = np.array(chosen[: len(documents)])
    held = [ids if keep else [9] for ids, keep in zip(documents, among, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "READ", 2)
        longest = [naive_longest(held, query[start:]) for start in range(len(query))]
        assert verbatim.longest_matches(query, among=among).tolist() == longest
        for size in (1, 2):
            right = naive_find(held, query[:size])
            assert verbatim.count(query[:size], among) == len(right)
            for most in (phrases.SAMPLE_IN_ORDER, 1):
                patch.setattr(phrases, "SAMPLE_IN_ORDER", most)
                for limit in (2, 100):
                    found = verbatim.sample(query[:size], limit, 0, among)
                    places = [(match.position, match.offset) for match in found]
                    assert places == sorted(set(places))
                    assert set(places) <= set(right)
                    assert len(places) == min(limit, len(right))


def test_an_unknown_word_matches_nothing():
    index = text_index(["a b zebra c", "a yak c"])
    verbatim = Verbatim.open(index, letters_with_unknown())
    unknown = verbatim.tokenizer.unknown
    assert unknown is not None
    assert verbatim.unigrams[unknown] == 2
    assert verbatim.count([0, unknown]) == 0
    assert verbatim.longest_matches([0, 1, unknown, 2]).tolist() == [2, 1, 0, 1]
    assert verbatim.count_text("a gnu") == 0


def letters_with_unknown() -> TextTokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    raw = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "?": 3}, "?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextTokenizer.from_json(raw.to_str(), "abc")


# -- files ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What stops a build where it stands."""


@pytest.mark.parametrize("after", range(14))
def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path, monkeypatch, after):
    index = token_index(DOCUMENTS, tmp_path / "index")
    whole = Verbatim.open(token_index(DOCUMENTS, tmp_path / "whole"), letters(), shard_tokens=8)
    assert len(whole.shards) == 4
    left = after

    def counted(path: Path, write: Any) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        write_atomic(path, write)

    with monkeypatch.context() as patch:
        for place in (module, token_store):
            patch.setattr(place, "write_atomic", counted)
        with pytest.raises(Killed):
            Verbatim.open(index, letters(), shard_tokens=8)
    done = [p for name in ("shard", "array") for p in index.path.glob(f"verbatim/*/{name}-*")]
    times = [path.stat().st_mtime_ns for path in done]
    resumed = Verbatim.open(index, letters(), shard_tokens=8)
    assert files(resumed.folder) == files(whole.folder)
    assert [path.stat().st_mtime_ns for path in done] == times  # finished parts are taken over
    check(resumed, DOCUMENTS, [0, 1, 2])


def test_opening_again_builds_nothing(tmp_path, monkeypatch):
    index = token_index(DOCUMENTS, tmp_path / "index")
    Verbatim.open(index, letters())
    monkeypatch.setattr(module, "write_tokens", None)
    again = Verbatim.open(hw.Index.open(tmp_path / "index"), letters(), build=False)
    assert again.count([0, 1]) == 3
    with pytest.raises(InputError, match="no verbatim evidence for the tokenizer abc"):
        Verbatim.open(index, letters_with_unknown(), build=False)


FILES = ["tokens-00001.bin", "offsets-00001.bin", "array-00001.bin"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_named_or_made_again(tmp_path, name):
    index = token_index(DOCUMENTS, tmp_path / "index")
    folder = Verbatim.open(index, letters(), shard_tokens=8).folder
    whole = files(folder)
    (folder / name).write_bytes(whole[name][:-2])
    with pytest.raises(DamageError, match=name):
        Verbatim.open(index, letters(), build=False)
    assert Verbatim.open(index, letters(), shard_tokens=8).count([2, 2]) == 3
    assert files(folder) == whole
    (folder / name).write_bytes(bytes([whole[name][0] ^ 1]) + whole[name][1:])
    assert store.damaged_stores(index.path) == [f"verbatim/{folder.name}/{name}"]


@pytest.mark.parametrize("checked", [0, module.CHECKED])
def test_flipped_bytes_of_the_array(tmp_path, monkeypatch, checked):
    """Of a large array no entry is read before it is asked for: then it is named, too."""
    monkeypatch.setattr(module, "CHECKED", checked)
    index = token_index(DOCUMENTS, tmp_path / "index")
    folder = Verbatim.open(index, letters()).folder
    whole = (folder / "array-00000.bin").read_bytes()
    (folder / "array-00000.bin").write_bytes(bytes([*whole[:3], 0x2F] * (len(whole) // 4)))
    with pytest.raises(DamageError, match=r"array-00000.bin is damaged.*Remove .*built again"):
        Verbatim.open(index, letters()).longest_matches([0, 1, 2, 3])
    with pytest.raises(DamageError, match=r"array-00000.bin is damaged.*Remove .*built again"):
        Verbatim.open(index, letters()).shards[0].suffixes.positions(0, 4)
    if checked:  # two entries exchanged for one another's neighbours, within the text
        (folder / "array-00000.bin").write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(DamageError, match=r"array-00000.bin is damaged"):
            Verbatim.open(index, letters())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 2])
def test_damage_in_a_build_that_was_stopped_is_not_taken_over(tmp_path, name, cut):
    index = token_index(DOCUMENTS, tmp_path / "index")
    folder = Verbatim.open(index, letters(), shard_tokens=8).folder
    whole = files(folder)
    (folder / "record.json").unlink()  # it was stopped just before
    data = whole[name]
    (folder / name).write_bytes((bytes([data[0] ^ 1]) + data[1:])[: len(data) - cut])
    check(Verbatim.open(index, letters(), shard_tokens=8), DOCUMENTS, [0, 1, 2])
    assert files(folder) == whole


def test_an_array_of_other_tokens_is_sorted_again(tmp_path):
    index = token_index(DOCUMENTS, tmp_path / "index")
    folder = Verbatim.open(index, letters(), shard_tokens=8).folder
    (folder / "record.json").unlink()
    (folder / "shard-00001.json").unlink()  # from here on, in shards of another size
    again = Verbatim.open(index, letters(), shard_tokens=12)
    check(again, DOCUMENTS, [2, 2, 0, 1])


@pytest.mark.parametrize("name", FILES)
def test_files_that_do_not_fit_together(tmp_path, name):
    index = token_index(DOCUMENTS, tmp_path / "index")
    folder = Verbatim.open(index, letters(), shard_tokens=8).folder
    record = json.loads((folder / "record.json").read_text())
    path = folder / name
    path.write_bytes(path.read_bytes()[:-4])
    record["files"][name]["bytes"] -= 4
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(DamageError, match=f"{name} is damaged.*for 6 tokens of 2 documents"):
        Verbatim.open(index, letters())


def test_tokens_that_are_given_are_taken_a_few_documents_at_a_time(monkeypatch):
    documents = [[i % 10] * 30 for i in range(12)]
    sizes = []
    taken = token_store._ids_of

    def counted(batch: Any, tokenizer: Any) -> Any:
        sizes.append(sum(len(one.content["input_ids"]) for one in batch))
        return taken(batch, tokenizer)

    monkeypatch.setattr(token_store, "_ids_of", counted)
    monkeypatch.setattr(token_store, "BATCH", 64)
    assert Verbatim.open(token_index(documents), letters()).tokens == 360
    assert max(sizes) < 64 + 31


def test_stores_of_old_vocabularies_go(tmp_path):
    index = text_index(["a river", "a sea"], tmp_path / "index")
    Verbatim.open(index)
    Verbatim.open(index, byte_level())
    for number in range(3):
        new = {"id": f"new{number}", "text": f"a river of number{number}"}
        index.append(hw.Corpus.from_documents([new]))
        assert Verbatim.open(index).count_text("river") == number + 2
        assert len(list(store.stores(index.path))) == 2  # the words, and the phrases
    Verbatim.open(index, byte_level())
    assert len(list(store.stores(index.path))) == 3


def test_a_grown_corpus_is_tokenised_anew(tmp_path):
    index = text_index(["a river", "a sea"], tmp_path / "index")
    assert Verbatim.open(index).count_text("river") == 1
    index.append(hw.Corpus.from_documents([{"id": "new", "text": "a wide river"}]))
    grown = Verbatim.open(index)
    assert grown.count_text("river") == 2
    assert [match.position for match in grown.find_text("wide")] == [2]


def test_what_it_costs():
    assert build_cost(10**6, 50_000) == (10**7, 6 * 10**6)
    assert build_cost(10**6, 128_000) == (2 * 10**7, 8 * 10**6)
    assert build_cost(10**9, 50_000)[0] == 10 << 28  # one shard at a time is sorted


def test_the_folder_explains_itself(tmp_path):
    index = text_index(["Lima is a capital."], tmp_path / "index")
    verbatim = Verbatim.open(index)
    record = json.loads((verbatim.folder / "record.json").read_text())
    assert record["tokenizer"]["name"] == "words"
    assert record["bytes_per_token"] == 2
    assert record["shards"] == [{"first": 0, "documents": 1, "tokens": 7}]
    tokenizer = TextTokenizer.from_file(verbatim.folder / "tokenizer.json")
    raw = np.fromfile(verbatim.folder / "tokens-00000.bin", dtype=">u2")
    assert raw[[0, -1]].tolist() == [record["separator"]] * 2 == [65535] * 2
    assert tokenizer.decode(raw[1:-1].astype(int)) == "Lima is a capital."


# -- bad input ------------------------------------------------------------------------------------


def test_documents_with_ids_of_another_tokenizer():
    with pytest.raises(InputError, match="d1 holds the separator of documents.*found 65535"):
        Verbatim.open(token_index([[1], [2, 65535]]), letters())
    with pytest.raises(InputError, match="d0 holds a token of no vocabulary.*found 10"):
        Verbatim.open(token_index([[3, 10]]), letters())
    with pytest.raises(InputError, match="d0 holds token ids.*Name their tokenizer"):
        Verbatim.open(token_index([[3, 1]]))


@pytest.mark.parametrize("query", [[10], [-1], [1, 65535], [0.5], [[1]], ["a"]])
def test_queries_with_other_tokens(query):
    verbatim = Verbatim.open(token_index(DOCUMENTS), letters())
    for ask in (verbatim.count, verbatim.find, verbatim.longest_matches, verbatim.next_tokens):
        with pytest.raises(InputError):
            ask(query)


def test_empty_queries():
    verbatim = Verbatim.open(token_index(DOCUMENTS), letters())
    with pytest.raises(InputError, match="empty phrase"):
        verbatim.count([])
    with pytest.raises(InputError, match="empty phrase"):
        verbatim.find([])
    with pytest.raises(InputError, match="no tokens"):
        verbatim.count_text("")
    assert verbatim.longest_match([]) == (0, 0)
    assert verbatim.longest_matches([]).tolist() == []
    assert verbatim.infinity_gram([9]).length == 0
    assert verbatim.infinity_gram([9]).next == verbatim.next_tokens([])


def test_a_corpus_without_tokens():
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.BPE({"a": 0, "b": 1}, []))  # leaves out every other character
    only = TextTokenizer.from_json(raw.to_str(), "a and b")
    verbatim = Verbatim.open(text_index(["zz", "z"]), only)
    assert verbatim.tokens == 0
    assert verbatim.count([1]) == 0
    assert verbatim.longest_matches([1, 0]).tolist() == [0, 0]
    assert verbatim.find([1]) == []
    assert verbatim.next_tokens([]) == {}
    some = Verbatim.open(text_index(["zz", "ab", "z"]), only)
    check(some, [[], [0, 1], []], [0, 1, 0])


def test_no_torch(tmp_path):
    text_index(["Lima is the capital of Peru."], tmp_path)
    code = (
        "import sys, headwater as hw\n"
        "from headwater.evidence.verbatim import Verbatim\n"
        "from headwater.evidence.spans import trace\n"
        "import headwater.evidence.infini_gram\n"
        "assert trace(Verbatim.open(hw.Index.open(sys.argv[1])), 'the capital of Peru.')\n"
        "wrong = [n for n in ('torch', 'transformers') if n in sys.modules]\n"
        "assert not wrong, wrong\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_naive_search_itself():
    assert naive_find(DOCUMENTS, [0, 1]) == [(0, 0), (0, 2), (3, 0)]
