"""Catalog, imagery and result on a real S3 server: the same bytes as on file."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import geopandas.testing
import pystac
import pytest
import xarray as xr
import yaml
from moto.server import ThreadedMotoServer

from earthgptx import open_result, plan, run
from tests import PATH, REPO
from tests.archive import Archive, targets
from tests.results import contents


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="archive")
    yield settings["AWS_ENDPOINT_URL"]
    server.stop()


def test_everything_on_s3_gives_the_same_bytes_as_on_file(
    s3: str, archive: Archive, tmp_path: Path, ray_two: None
) -> None:
    archive.add("a", targets(5), nodata=None)
    archive.save()
    run(plan(archive.job(tmp_path / "file.zarr", tasks={"find": ["ship"], "describe": True})))

    client = boto3.client("s3")
    catalog = pystac.Catalog.from_file(str(archive.folder / "catalog.json"))
    for item in catalog.get_items():
        item.assets["image"].href = f"s3://archive/{item.id}.tif"
    catalog.normalize_and_save(
        "s3://archive", pystac.CatalogType.ABSOLUTE_PUBLISHED, stac_io=Uploading()
    )
    client.upload_file(str(archive.folder / "a.tif"), "archive", "a.tif")
    document = archive.job(
        "s3://archive/results/out.zarr", tasks={"find": ["ship"], "describe": True}
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
    document["source"]["catalog"] = "s3://archive/catalog.json"
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(document))
    # A process of its own: Ray's workers have the environment of the time when Ray started. Twice:
    # the second finds what the first has left.
    for said in ("done:", "0 tiles analysed"):
        ended = subprocess.run(
            [sys.executable, "-m", "earthgptx", "run", str(job)],
            env=os.environ | {"PYTHONPATH": PATH},
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert said in ended.stdout + ended.stderr

    for entry in client.get_paginator("list_objects_v2").paginate(
        Bucket="archive", Prefix="results/"
    ):
        for found in entry["Contents"]:
            path = tmp_path / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("archive", found["Key"], str(path))
    ours, theirs = contents(tmp_path / "results/out.zarr"), contents(tmp_path / "file.zarr")
    assert sorted(ours) == sorted(theirs)
    # Content keys know where the imagery lies.
    unlike = ("zarr.json", "blocks/record/c/0/0/0/0", "slices/key/c/0")
    assert [name for name in ours if ours[name] != theirs[name] and name not in unlike] == []
    assert not [path for path in (tmp_path / "results").iterdir() if path.suffix == ".parts"], (
        "scratch is cleared"
    )

    raster = xr.open_zarr(
        "s3://archive/results/out.zarr", group="raster", storage_options={"endpoint_url": s3}
    )
    assert int((raster["label"] == 1).sum()) > 100
    again = subprocess.run(
        [sys.executable, "-m", "earthgptx", "query", "s3://archive/results/out.zarr", "--json"],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "ship, about" in again.stdout


@pytest.mark.slow
def test_a_versioned_result_on_s3_equals_one_on_file_and_keeps_its_states(
    s3: str, archive: Archive, tmp_path: Path, ray_two: None
) -> None:
    archive.add("a", targets(5), nodata=None)
    archive.add("b", targets(6), nodata=None, when="2026-01-02T10:00:00Z")
    output = "icechunk+s3://archive/results/kept.zarr"
    for names in (["a"], ["a", "b"]):
        archive.publish(names)
        document = archive.job(output).model_dump(mode="json", by_alias=True, exclude_none=True)
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(document))
        told = earthgptx("run", tmp_path / "job.yaml")
        assert "done:" in told.stdout + told.stderr, told.stderr
    plain = archive.job(tmp_path / "file.zarr")
    run(plan(plain))
    ours, theirs = open_result(output), open_result(plain.output)
    xr.testing.assert_identical(
        ours.layer("raster").drop_attrs(), theirs.layer("raster").drop_attrs()
    )
    geopandas.testing.assert_geodataframe_equal(ours.objects, theirs.objects)

    states = json.loads(earthgptx("versions", output, "--json").stdout)
    assert [state["tags"] for state in states] == [[], ["2026-01-02"], [], ["2026-01-01"], []]
    counted = earthgptx("query", output, "--tag", "2026-01-01", "--count-by", "slice", "--json")
    assert [row["slice"][:10] for row in json.loads(counted.stdout)] == ["2026-01-01"]
    first = earthgptx("status", output, "--as-of", states[2]["time"])
    assert "time slices: 1 finished" in first.stdout
    for wrong in ("--snapshot", "--tag"):
        refused = earthgptx("query", output, wrong, "nope", code=2)
        assert f"has no {wrong[2:]} nope; there are" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert "keeps its last state only" in earthgptx("versions", plain.output, code=2).stderr


def earthgptx(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which has this process's environment."""
    ended = subprocess.run(
        [sys.executable, "-m", "earthgptx", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": PATH, "COLUMNS": "200"},
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    return ended


class Uploading(pystac.stac_io.DefaultStacIO):
    """pystac's writer, to S3."""

    def write_text_to_href(self, href: str, txt: str) -> None:
        bucket, key = href.removeprefix("s3://").split("/", 1)
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=txt.encode())
