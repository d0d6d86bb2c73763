"""What is sent to a cluster of a flow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from earthgptx.pipeline.errors import JobError
from earthgptx.workflows.flow.packing import Packed, pack
from earthgptx.workflows.flow.running import Flow
from earthgptx.workflows.flow.spec import read_flow
from tests.workflows.schedule.test_schedule import flow_file


def packed(path: Path, most_bytes: int = 10**6, shared: tuple[str, ...] = ()) -> Packed:
    return pack(path, Flow.read(path), most_bytes=most_bytes, shared=shared)


def unpacked(files: Packed, folder: Path) -> Path:
    folder.mkdir()
    for name, data in files.files.items():
        (folder / name).write_bytes(data)
    return folder / files.main


def test_what_arrives_is_the_same_flow(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "here")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "here/ships.yaml").rename(tmp_path / "jobs/ships.yaml")
    (tmp_path / "here/aoi.geojson").rename(tmp_path / "jobs/aoi.geojson")
    path.write_text(path.read_text().replace("ships.yaml", "../jobs/ships.yaml"))
    there = unpacked(packed(path), tmp_path / "there")
    assert {each.name for each in there.parent.iterdir()} == {
        "flow.yaml",
        "ships.yaml",
        "aoi.geojson",
    }
    sent, read = Flow.read(there), Flow.read(path)
    assert [node.name for node in sent.nodes] == [node.name for node in read.nodes]
    [job], [other] = sent.jobs.values(), read.jobs.values()
    assert job.source.aoi == str(there.parent / "aoi.geojson")
    assert job.model_dump(exclude={"source"}) == other.model_dump(exclude={"source"})


def test_a_job_file_is_a_flow_of_one(tmp_path: Path) -> None:
    flow_file(tmp_path / "here")
    files = packed(tmp_path / "here/ships.yaml")
    assert files.main == "ships.yaml"
    assert read_flow(unpacked(files, tmp_path / "there"))[0].name == "ships"


def test_files_of_one_name_stay_apart_and_a_shapefile_is_sent_whole(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "here")
    more = tmp_path / "here/more"
    more.mkdir()
    for suffix in (".SHP", ".SHX", ".dbf", ".prj"):
        (more / f"my aoi{suffix}").write_bytes(suffix.encode())
    job = yaml.safe_load((tmp_path / "here/ships.yaml").read_text())
    job |= {"name": "more", "output": "s3://bucket/b.zarr"}
    job["source"]["aoi"] = f"file://{more}/my aoi.SHP"
    (more / "ships.yaml").write_text(yaml.safe_dump(job))
    flow = yaml.safe_load(path.read_text())
    flow["steps"].insert(0, {"job": "more/ships.yaml", "name": "more"})
    path.write_text(yaml.safe_dump(flow))
    there = unpacked(packed(path), tmp_path / "there")
    names = {each.name for each in there.parent.iterdir()}
    assert {f"my_aoi{suffix}" for suffix in (".SHP", ".SHX", ".dbf", ".prj")} < names
    assert {"ships.yaml", "_ships.yaml"} < names
    assert {job.name for job in Flow.read(there).jobs.values()} == {"ships", "more"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"catalog": "catalog.json"}, "source.catalog .*/here/catalog.json is a local path"),
        ({"output": "a.zarr"}, "output .*/here/a.zarr is a local path"),
        ({"output": "icechunk+a.zarr"}, "output icechunk.*/here/a.zarr is a local path"),
        ({"output": "file:///data/a.zarr"}, "output file:///data/a.zarr is a local path"),
    ],
)
def test_what_a_cluster_does_not_reach_is_refused(
    tmp_path: Path, more: dict[str, str], said: str
) -> None:
    path = flow_file(tmp_path / "here", **more)
    with pytest.raises(JobError, match=said):
        packed(path)
    assert packed(path, shared=(str(tmp_path / "here"), "/data")).files


def test_what_is_shared_is_named_by_its_whole_path(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "here")
    job = yaml.safe_load((tmp_path / "here/ships.yaml").read_text())
    job |= {"tasks": {"refer": True}, "prompts": {"from": "old.zarr", "within": "P3D"}}
    (tmp_path / "here/ships.yaml").write_text(yaml.safe_dump(job))
    files = packed(tmp_path / "here/ships.yaml", shared=(str(tmp_path),))
    sent = yaml.safe_load(files.files["ships.yaml"])
    assert sent["prompts"]["from"] == str(tmp_path / "here/old.zarr")
    assert files.is_job
    assert not packed(path, shared=(str(tmp_path),)).is_job


def test_too_much_is_refused(tmp_path: Path) -> None:
    path = flow_file(tmp_path / "here")
    (tmp_path / "here/aoi.geojson").write_text(" " * 2000)
    with pytest.raises(JobError, match=r"at most 1,000; aoi.geojson is the largest"):
        packed(path, most_bytes=1000)
