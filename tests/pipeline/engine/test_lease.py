"""The lease: one run at a time, whatever has become of the one before."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.engine.scratch import MAGIC
from earthgptx.pipeline.errors import OutputBusy, OutputError, RunLost
from earthgptx.pipeline.storage.blobs import open_blobs
from earthgptx.pipeline.storage.fence import CHECK_S, HOLDER, Fence, fenced, parts_of


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARTHGPTX_LEASE_S", "1.5")


@pytest.fixture
def output(tmp_path: Path) -> str:
    return str(tmp_path / "a.zarr")


def record_of(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(open_blobs(parts_of(output)).get(HOLDER).data)
    return found


def rewrite(output: str, **more: Any) -> None:
    record = record_of(output) | more
    open_blobs(parts_of(output)).put(HOLDER, json.dumps(record).encode())


def left_by(output: str, **more: Any) -> None:
    """A record as another process has left it."""
    lease = Lease(output)
    with lease:
        record = record_of(output)
    open_blobs(parts_of(output)).put(HOLDER, json.dumps(record | {"token": "x"} | more).encode())


def test_a_second_run_is_refused_as_soon_as_the_first_gives_a_sign(output: str) -> None:
    with Lease(output), pytest.raises(OutputBusy, match="is being written by another run"):
        Lease(output).__enter__()
    with Lease(output):
        pass
    assert not Path(parts_of(output)).exists(), "nothing is left"


def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(output: str) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_by(output, pid=dead.pid)
    began = time.monotonic()
    with Lease(output):
        assert time.monotonic() - began < 1.0
        assert record_of(output)["epoch"] == 2


def test_a_process_that_has_the_number_of_the_dead_one_is_not_it(output: str) -> None:
    left_by(output, pid=os.getpid(), started=1.0)
    began = time.monotonic()
    with Lease(output):
        assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "record",
    [{"machine": "elsewhere", "beat": 10**12}, {"machine": "elsewhere", "beat": -5}, {}],
)
def test_a_silent_lease_lapses_by_the_watchers_clock(output: str, record: dict[str, Any]) -> None:
    left_by(output, **record)
    began = time.monotonic()
    with Lease(output) as lease:
        assert 1.5 <= time.monotonic() - began < 5.0
        lease.fence.check()


@pytest.mark.parametrize("text", [b"", b"{", b"[1]"])
def test_a_torn_record_lapses_too(output: str, text: bytes) -> None:
    open_blobs(parts_of(output)).put(HOLDER, text)
    with Lease(output) as lease:
        lease.fence.check()


def test_a_run_that_lost_its_lease_writes_nothing_more(output: str, tmp_path: Path) -> None:
    lease = Lease(output)
    with lease:
        files = fenced(str(tmp_path / "files"), lease.fence)
        files.put("a", b"1")
        rewrite(output, token="thief")
        time.sleep(CHECK_S)
        for write in (
            lambda: files.put("a", b"2"),
            lambda: files.delete(["a"]),
        ):
            with pytest.raises(RunLost, match="this run writes nothing more"):
                write()
        store = files.zarr_store()
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        value = default_buffer_prototype().buffer.from_bytes(b"3")
        for operation in (store.set("a", value), store.delete("a"), store.clear()):
            with pytest.raises(RunLost):
                sync(operation)
        assert files.get("a").data == b"1"
    assert record_of(output)["token"] == "thief", "the thief's record is left alone"


def test_of_many_that_want_a_lease_that_lapsed_one_gets_it(output: str) -> None:
    left_by(output, machine="elsewhere")
    held: list[Lease] = []
    refused: list[OutputBusy] = []

    def want() -> None:
        lease = Lease(output)
        try:
            lease.__enter__()
            held.append(lease)
        except OutputBusy as error:
            refused.append(error)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)
    held[0].fence.check()
    held[0].__exit__()


def test_scratch_that_is_kept_keeps_the_record_and_its_epoch(output: str) -> None:
    with Lease(output) as lease:
        lease.own("plan-1")
        open_blobs(parts_of(output)).put("scores/a", MAGIC + b"...")
    assert record_of(output)["token"] == ""
    with Lease(output) as lease:
        assert (lease.owned_series, record_of(output)["epoch"]) == ("plan-1", 2)


def test_only_a_folder_of_ours_is_taken(output: str) -> None:
    parts = open_blobs(parts_of(output))
    parts.put("scores/a", MAGIC + b"...")
    with Lease(output):
        pass
    parts.put("scores/mine", b"ten years of work")
    parts.delete([HOLDER])
    with pytest.raises(OutputError, match="no scratch folder of earthgptx"):
        Lease(output).__enter__()
    assert parts.get("scores/mine").data == b"ten years of work"


def test_a_check_holds_for_a_moment_only(output: str) -> None:
    with Lease(output) as lease:
        fence = Fence(open_blobs(parts_of(output)), lease.token)
        fence.check()
        rewrite(output, token="thief")
        fence.check()
        time.sleep(CHECK_S)
        with pytest.raises(RunLost):
            fence.check()
