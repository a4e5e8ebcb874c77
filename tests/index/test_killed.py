"""A build may be stopped anywhere, by any means: it goes on, and ends in the same bytes."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from pathlib import Path
from typing import Any

from index_builds import (
    Given,
    Stopped,
    build_given,
    given_corpus,
    process,
    stopping,
    tree,
    vectors,
)

import headwater as hw
from headwater.index.manifest import read_manifest

EXAMPLES, ROWS = 32, 2
KILLS = 20
FEATURES = hw.Features(projection=None, storage="int8")


def built(folder: Path, examples: int = 8) -> hw.Index:
    plan = hw.Plan(shard_rows=4)
    return hw.Index.build(folder, Given(), given_corpus(vectors(examples)), FEATURES, plan)


def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    def start(folder: Path) -> Any:
        return process(build_given, str(folder), EXAMPLES, ROWS, (0, 1))

    started = start(tmp_path / "whole")
    clock = time.perf_counter()
    started.join()
    takes = time.perf_counter() - clock
    whole = tree(tmp_path / "whole")
    assert whole
    rng, kills, number, stages = random.Random(3), 0, 0, set[int]()
    while kills < KILLS:
        folder = tmp_path / str(number)
        started = start(folder)
        time.sleep(rng.uniform(0, 0.8) * takes)
        started.kill()
        started.join()
        if started.exitcode == 0:  # it was faster: that one is whole, and the next begins
            assert tree(folder) == whole
            number += 1
            continue
        kills += 1
        stages.add(len(list((folder / "done").glob("*.json"))))
    started = start(folder)
    started.join()
    assert started.exitcode == 0
    assert tree(folder) == whole
    assert len(stages) > 1  # not always at the same place


def test_stopped_at_every_change_of_a_file(tmp_path: Path) -> None:
    built(tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    for after in itertools.count():
        folder = tmp_path / str(after)
        try:
            with stopping(after):
                built(folder)
        except Stopped:
            built(folder)
            assert tree(folder) == whole, after
        else:
            break
    assert after > 12


def test_an_append_stopped_at_every_change_of_a_file(tmp_path: Path) -> None:
    """Whoever goes on, the append itself or a build, it ends as if it had never been stopped."""
    added = given_corpus(vectors(6, seed=9), "new")
    built(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "whole")
    hw.Index.open(tmp_path / "whole", Given()).append(added)
    whole = tree(tmp_path / "whole")
    for after in itertools.count():
        folder = tmp_path / str(after)
        shutil.copytree(tmp_path / "base", folder)
        index = hw.Index.open(folder, Given())
        try:
            with stopping(after):
                index.append(added)
        except Stopped:
            manifest = read_manifest(folder)
            unrecorded = manifest["corpus"]["documents"] == 8
            if unrecorded or (after % 2 and not manifest["complete"]):
                hw.Index.open(folder, Given(), unfinished=True).append(added)
            else:
                hw.Index.build(folder, Given(), given_corpus(vectors(8)), FEATURES)
            assert tree(folder) == whole, after
            assert len(hw.Index.open(folder)) == 14
        else:
            break
    assert after > 10


def test_nothing_is_lost_while_an_append_is_half_done(tmp_path: Path) -> None:
    """Until the manifest names what is new, the index opens as it was."""
    index = built(tmp_path / "index")
    before = tree(tmp_path / "index")
    for steps in range(3):  # two shards and a summary come before it
        try:
            with stopping(steps):
                index.append(given_corpus(vectors(6, seed=9), "new"))
        except Stopped:
            pass
        opened = hw.Index.open(tmp_path / "index")
        assert len(opened) == 8
        assert opened.verify() == []
        after = tree(tmp_path / "index")
        assert {name: after[name] for name in before} == before
    built(tmp_path / "index")  # and what was begun is gone when it is not gone on with
    assert tree(tmp_path / "index") == before
