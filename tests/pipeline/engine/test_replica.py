"""A replica without Ray: what its threads may do at the same time."""

import threading
from pathlib import Path

import pytest

from earthgptx import plan
from earthgptx.pipeline.engine import replica as module
from earthgptx.pipeline.engine.replica import Replica
from earthgptx.pipeline.planning.plan import Plan
from tests.archive import Archive, targets


def test_a_replica_that_still_opens_the_last_run_begins_the_next_one(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.add("a", targets(5), nodata=None)
    archive.save()
    first, second = (plan(archive.job(tmp_path / f"{name}.zarr")) for name in ("one", "two"))
    opening, go = threading.Event(), threading.Event()

    class Opened:
        def __init__(self, made: Plan) -> None:
            self.plan = made

        @classmethod
        def open(cls, made: Plan, _token: str) -> "Opened":
            if made is first:
                opening.set()
                assert go.wait(10)
            return cls(made)

    monkeypatch.setattr(module, "RunContext", Opened)
    one = Replica(first, "1")
    loading = threading.Thread(target=one.load)
    loading.start()
    assert opening.wait(30)
    beginning = threading.Thread(target=one.begin, args=(second, "2"))
    beginning.start()
    beginning.join(0.5)
    go.set()
    loading.join()
    beginning.join()
    assert one._ready().plan is second
