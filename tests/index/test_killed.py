"""A build may be stopped anywhere, by any means: it goes on, and ends in the same bytes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import headwater as hw
from index_builds import (
    Given,
    build_given,
    given_corpus,
    process,
    tree,
    until_done,
    vectors,
)

EXAMPLES, ROWS = 32, 2
KILLS = 20
FEATURES = hw.Features(projection=None, storage="int8")


def built(folder: Path, examples: int = 8) -> hw.Index:
    plan = hw.Plan(shard_rows=4)
    return hw.Index.build(folder, Given(), given_corpus(vectors(examples)), FEATURES, plan)


def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    def start(name: str) -> None:
        nonlocal started
        started, _ = process(build_given, str(tmp_path / name), EXAMPLES, ROWS, (0, 1))

    started = None
    clock = time.perf_counter()
    start("whole")
    started.join()
    takes = time.perf_counter() - clock
    whole = tree(tmp_path / "whole")
    assert whole
    rng, kills, number, stages = random.Random(3), 0, 0, set[int]()
    while kills < KILLS:
        folder = tmp_path / str(number)
        start(folder.name)
        time.sleep(rng.uniform(0, 0.3) * takes)
        started.kill()
        started.join()
        if started.exitcode == 0:  # it was faster: that one is whole, and the next begins
            assert tree(folder) == whole
            number += 1
            continue
        kills += 1
        stages.add(len(list((folder / "done").glob("*.json"))))
    start(folder.name)
    started.join()
    assert started.exitcode == 0
    assert tree(folder) == whole
    assert len(stages) > 1  # not always at the same place


def test_stopped_at_every_change_of_a_file(tmp_path: Path) -> None:
    built(tmp_path / "whole")
    folder = tmp_path / "stopped"
    assert until_done(lambda: built(folder)) > 10
    assert tree(folder) == tree(tmp_path / "whole")


def test_an_append_stopped_at_every_change_of_a_file(tmp_path: Path) -> None:
    """Whoever goes on, the append itself or the build, it ends as if it had never been stopped."""
    added = given_corpus(vectors(6, seed=9), "new")
    built(tmp_path / "whole").append(added)
    for name, again in (("append", added), ("build", given_corpus(vectors(8)))):
        folder = tmp_path / name
        index = built(folder)

        def work(folder: Path = folder, index: hw.Index = index, again: hw.Corpus = again) -> None:
            if _recorded(folder) == 8:
                index.append(added)
            elif again is added:
                index.append(again)
            else:
                hw.Index.build(folder, Given(), again, FEATURES)

        assert until_done(work) > 8
        assert tree(folder) == tree(tmp_path / "whole")
        assert len(hw.Index.open(folder)) == 14


def _recorded(folder: Path) -> int:
    from headwater.index.manifest import read_manifest

    return read_manifest(folder)["corpus"]["documents"]


def test_nothing_is_lost_while_an_append_is_half_done(tmp_path: Path) -> None:
    """Until the manifest names what is new, the index opens as it was."""
    index = built(tmp_path / "index")
    before = tree(tmp_path / "index")
    added = given_corpus(vectors(6, seed=9), "new")
    from index_builds import Stopped, stopping

    for steps in range(4):  # two shards, a summary; the manifest would be the fourth
        try:
            with stopping(steps):
                index.append(added)
        except Stopped:
            pass
        opened = hw.Index.open(tmp_path / "index")
        assert len(opened) == 8
        assert opened.verify() == []
        after = tree(tmp_path / "index")
        assert {name: after[name] for name in before} == before
