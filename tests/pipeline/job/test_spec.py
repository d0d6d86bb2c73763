from pathlib import Path
from typing import Any

import pytest
import yaml

from earthgptx import JobSpec
from earthgptx.catalogs.errors import AddressRefused
from earthgptx.pipeline.errors import JobError
from tests import REPO

JOB: dict[str, Any] = {
    "name": "harbour",
    "source": {
        "catalog": "sample/catalog.json",
        "collections": ["sample-sar"],
        "aoi": "harbour.geojson",
    },
    "tasks": {"find": ["ship"]},
    "output": "results/harbour.zarr",
}


def job(**changes: Any) -> dict[str, Any]:
    return {**JOB, **changes}


def test_a_minimal_job_gets_the_documented_defaults() -> None:
    spec = JobSpec.from_dict(JOB)
    assert (spec.slices, spec.model, spec.prompts.origin) == ("day", "cfar", "none")
    assert (spec.grid.tile_px, spec.grid.halo_px, spec.grid.block_px, spec.grid.core_px) == (
        512,
        64,
        3072,
        384,
    )
    assert (spec.grid.crs, spec.grid.resolution, spec.grid.chunk_px) == ("auto", "native", 512)
    assert (
        spec.engine.replicas,
        spec.engine.gpus_per_replica,
        spec.engine.max_failed_fraction,
    ) == (1, 0, 0.01)


def test_relative_paths_are_relative_to_the_job_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "job.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(job(prompts={"from": "points.geojson"})))
    spec = JobSpec.from_yaml(path)
    assert spec.source.catalog == str(tmp_path / "deep/sample/catalog.json")
    assert spec.source.aoi == str(tmp_path / "deep/harbour.geojson")
    assert spec.prompts.origin == str(tmp_path / "deep/points.geojson")
    assert spec.output == str(tmp_path / "deep/results/harbour.zarr")
    assert (
        JobSpec.from_yaml(path, output="s3://bucket/other.zarr").output == "s3://bucket/other.zarr"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"taks": {}}, "unknown key 'taks'; did you mean 'tasks'\\?"),
        ({"grid": {"tile": 512}}, "unknown key 'grid.tile'; did you mean 'tile_px'\\?"),
        (
            {"engine": {"zzz": 1}},
            "unknown key 'engine.zzz'; known here: gpus_per_replica, max_cost, max_failed_fraction",
        ),
        ({"tasks": {"find": "ship"}}, "'tasks.find': .*list.*given: 'ship'"),
        ({"tasks": {}}, "nothing is asked for; set find, refer, describe or ask"),
        ({"tasks": {"find": ["a", "a"]}}, "each only once"),
        ({"tasks": {"refer": True}}, "tasks.refer needs prompts"),
        ({"slices": "week"}, "'slices': .*'item', 'day', 'month' or 'all'.*given: 'week'"),
        ({"engine": {"replicas": 0}}, "'engine.replicas': .*greater than or equal to 1"),
        ({"output": "results/harbour"}, "does not end in .zarr"),
        ({"name": "../up"}, "'name'"),
        (
            {"grid": {"tile_px": 180, "halo_px": 64}},
            "leaves a core of 52 px.*smallest tile for this halo is 192",
        ),
        ({"grid": {"block_px": 3000}}, "not whole cores of 384 px.*nearest that is: 3072"),
        (
            {"grid": {"tile_px": 225, "halo_px": 64, "block_px": 97 * 7}},
            "no chunk size.*whole cores and whole chunks: 12416",
        ),
        ({"grid": {"resolution": -3}}, "'grid.resolution': .*greater than 0"),
        ({"source": {**JOB["source"], "aoi": {"bbox": [6, 43, 5, 44]}}}, "west < east"),
        (
            {"source": {**JOB["source"], "time": "soon"}},
            "'source.time': time 'soon' is no interval",
        ),
        ({"source": {**JOB["source"], "filter": "cloud <"}}, "'source.filter': .*no CQL2"),
        ({"source": {**JOB["source"], "collections": []}}, "'source.collections'"),
        (
            {"source": {**JOB["source"], "catalogue": "x"}},
            "unknown key 'source.catalogue'; did you mean 'catalog'",
        ),
        (
            {"source": {**JOB["source"], "profiles": {"x": {"modality": "radar", "bands": []}}}},
            "'optical', 'sar' or 'infrared'",
        ),
    ],
)
def test_a_mistake_gets_one_sentence_that_says_where_and_what_to_do(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(JobError, match=sentence) as caught:
        JobSpec.from_dict(job(**changes), where="job.yaml")
    assert all(line.startswith("job.yaml: ") for line in str(caught.value).splitlines())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(JobError, match="'tasks' is missing"):
        JobSpec.from_dict({key: value for key, value in JOB.items() if key != "tasks"})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: [", "is not YAML"),
        (b"", "holds no job"),
        (b"- a", "holds no job"),
        (b"\xff\xfe\x00", "cannot read the job file"),
    ],
)
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(JobError, match=sentence):
        JobSpec.from_yaml(path)
    with pytest.raises(JobError, match="cannot read the job file"):
        JobSpec.from_yaml(tmp_path / "missing.yaml")


def test_the_examples_are_jobs() -> None:
    examples = sorted((REPO / "examples").glob("*.yaml"))
    assert len(examples) >= 3
    for path in examples:
        JobSpec.from_yaml(path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2018-07-16", "2018-07-16"),
        ("2018", "2018"),
        ("2018-07-16T10:00:00Z", "2018-07-16T10:00:00+00:00"),
        ("2018-07-16/2018-07-18", "2018-07-16/2018-07-18"),
        ('"2018-07"', "2018-07"),
    ],
)
def test_a_time_needs_no_quotes(tmp_path: Path, written: str, meant: str) -> None:
    """YAML reads some of them as dates or numbers."""
    path = tmp_path / "job.yaml"
    path.write_text(
        yaml.safe_dump(JOB | {"source": {**JOB["source"], "time": "WHEN"}}).replace("WHEN", written)
    )
    assert JobSpec.from_yaml(path).source.time == meant


def test_a_job_file_says_what_may_be_opened(tmp_path: Path) -> None:
    access = {"hosts": ["*.example.org"], "folders": ["cogs"]}
    path = tmp_path / "job.yaml"
    source = {**JOB["source"], "catalog": "https://stac.example.com/v1", "access": access}
    path.write_text(yaml.safe_dump(JOB | {"source": source}))
    reach = JobSpec.from_yaml(path).opening().reach
    reach.check("https://stac.example.com/v1/search")
    reach.check("https://cdn.example.org/a.tif")
    reach.check(str(tmp_path / "cogs" / "a.tif"))
    with pytest.raises(AddressRefused):
        reach.check("https://example.com/a.tif")
