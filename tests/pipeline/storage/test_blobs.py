"""Files behind one protocol: the same on a disk and on S3."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from earthgptx.pipeline.engine.lease import Lease
from earthgptx.pipeline.errors import OutputError
from earthgptx.pipeline.storage.blobs import Conflict, open_blobs
from tests.chaos.servers import Proxy, faulty_s3


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before an S3 server."""
    with faulty_s3(monkeypatch) as proxy:
        yield proxy


def test_a_conditional_write_whose_answer_is_lost_is_recognised(s3: Proxy) -> None:
    lease = Lease("s3://archive/results/out.zarr")
    s3.fault = lambda method, path: "lost answer" if method == "PUT" and not s3.faults else ""
    with lease:
        assert s3.faults["lost answer"] == 1
        lease.fence.check()
        s3.faults.clear()
        lease.finished = True
        lease.own("plan")
        assert s3.faults["lost answer"] == 1
        lease.fence.check()
    assert open_blobs("s3://archive/results").names() == []


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_conditional_writes_on_every_kind_of_storage(s3: Proxy, tmp_path: Path, kind: str) -> None:
    blobs = open_blobs(str(tmp_path / "folder") if kind == "file" else "s3://archive/folder")
    version = blobs.put_new("a/b.json", b"1")
    with pytest.raises(Conflict):
        blobs.put_new("a/b.json", b"2")
    later = blobs.put_if("a/b.json", b"3", version)
    with pytest.raises(Conflict):
        blobs.put_if("a/b.json", b"4", version)
    assert blobs.get("a/b.json").data == b"3"
    assert blobs.get("a/b.json").version == later
    blobs.put("c", b"5")
    assert [name for name in blobs.names() if not name.endswith(".lock")] == ["a/b.json", "c"]
    blobs.delete(["a/b.json", "c", "never", "a/b.json.lock"])
    assert blobs.names() == []
    with pytest.raises(FileNotFoundError):
        blobs.get("c")
    with pytest.raises(Conflict):
        blobs.put_if("c", b"6", version)


def test_only_kinds_of_storage_with_conditional_writes_are_written(tmp_path: Path) -> None:
    for url in ("http://a/b.zarr", "memory://a.zarr", "ftp://a/b.zarr"):
        with pytest.raises(OutputError, match="results go to a local path or to s3"):
            open_blobs(url)
    assert open_blobs(f"file://{tmp_path}").url == str(tmp_path)


def test_a_folder_that_is_tidied_meanwhile_does_not_stop_a_write(tmp_path: Path) -> None:
    blobs, other = open_blobs(str(tmp_path / "a")), open_blobs(str(tmp_path / "a"))
    stop = threading.Event()

    def tidy() -> None:
        while not stop.is_set():
            other.tidy()

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        for _ in range(300):
            blobs.put("kind/name", b"1")
            blobs.delete(["kind/name"])
    finally:
        stop.set()
        thread.join()


def test_a_file_that_is_replaced_is_never_seen_torn(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path))
    blobs.put("a", b"0" * 100_000)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number = 1 - number
            blobs.put("a", str(number).encode() * 100_000)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(500):
            data = blobs.get("a").data
            assert len(data) == 100_000
            assert data in (b"0" * 100_000, b"1" * 100_000)
    finally:
        stop.set()
        thread.join()
