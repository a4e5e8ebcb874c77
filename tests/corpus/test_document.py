"""The content hash tells apart what differs, and nothing else; the plain text is readable."""

import datetime
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.corpus.document import Document, content_hash, plain_text
from headwater.engine.errors import InputError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def _typed(value):
    if isinstance(value, dict):
        return ("dict", tuple(sorted((k, _typed(v)) for k, v in value.items())))
    if isinstance(value, list):
        return ("list", tuple(map(_typed, value)))
    return (type(value).__name__, value)


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_equal_hash_means_equal_value(one, other):
    same = content_hash({"x": one}) == content_hash({"x": other})
    assert same == (repr(_typed(one)) == repr(_typed(other)))


def test_recorded_hashes_do_not_move():
    # These are in people's indexes: a change here breaks the ids of every stored corpus.
    assert content_hash({"text": "Lima"})[:16] == "6e958fd5f86cf7dd"
    assert content_hash({"input_ids": [1, 2, 3]})[:16] == "9be6bb757c82b95c"
    assert content_hash({"x": np.arange(4, dtype=np.float32)})[:16] == "6eefcb15a65d6207"


def test_another_process_agrees():
    code = (
        "from headwater.corpus import content_hash;"
        "print(content_hash({'messages': [{'role': 'user', 'content': 'hé'}], 'a': {1.5: None}}))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_numbers_arrays_and_types():
    def digest(value):
        return content_hash({"x": value})

    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    array = np.arange(6, dtype=np.int32)
    distinct = [
        1,
        1.0,
        True,
        "1",
        b"1",
        [1],
        [[1]],
        [True],
        [1.0],
        [2**70],
        [],
        None,
        {},
        np.int64(1),
        np.float32(1),
        array,
        array.reshape(2, 3),
        array.astype(np.int64),
        array.tolist(),
        datetime.date(2020, 1, 2),
        "2020-01-02",
    ]
    assert len({digest(value) for value in distinct}) == len(distinct)
    assert digest(array) == digest(array.astype(">i4"))
    assert digest(np.asfortranarray(array.reshape(2, 3))) == digest(array.reshape(2, 3))
    assert digest(np.array(["a", "b"])) == digest(np.array(["a", "b", "long"])[:2])


@pytest.mark.parametrize("value", [object(), {1, 2}, "\ud800", np.array([None])])
def test_refuses_what_has_no_stable_form(value):
    with pytest.raises(InputError):
        content_hash({"x": value})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"text": "a\nb"}, "a\nb"),
        ({"prompt": "2+2=", "completion": "4"}, "2+2=4"),
        ({"input_ids": [1, 2]}, ""),
        (
            {
                "messages": [
                    {"role": "user", "content": "hi"},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "see"}, {"type": "image"}],
                    },
                    {"role": "assistant", "content": None, "tool_calls": [{}]},
                ]
            },
            "user: hi\nuser: see [image]\nassistant: [tool calls]",
        ),
        (
            {"x": np.zeros((28, 28), np.float32), "y": np.int64(3), "z": np.array([1, 2])},
            "x=float32[28, 28], y=3, z=[1, 2]",
        ),
    ],
)
def test_plain_text(content, expected):
    assert plain_text(Document("a", content)) == expected
