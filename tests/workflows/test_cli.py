"""The command line as a user meets it: its words, its exit code."""

import contextlib
import importlib.metadata
import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import geopandas as gpd
import numpy as np
import pystac
import pytest
import yaml
from matplotlib.image import imread
from typer.main import get_group
from typer.testing import CliRunner

from earthgptx import open_result
from earthgptx.workflows import terminal
from earthgptx.workflows.cli import app, main
from tests import REPO
from tests.archive import Archive, targets

COMMANDS = (
    "init",
    "sample",
    "demo",
    "search",
    "plan",
    "run",
    "status",
    "why",
    "versions",
    "diff",
    "query",
    "show",
    "serve",
    "inspect",
    "export",
    "workflow",
    "backfill",
    "watch",
    "schedule",
    "submit",
    "jobs",
    "chips",
    "train",
    "evaluate",
)


def earthgptx(*arguments: object, code: int = 0) -> tuple[str, str]:
    """What a command says on standard output and on standard error, by the program's own entry
    point.
    """
    said, complained, ended = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complained),
        mock.patch.object(sys, "argv", ["earthgptx", *map(str, arguments)]),
        warnings.catch_warnings(),
    ):
        try:
            main()
        except SystemExit as exit:
            ended = int(exit.code or 0)
    assert ended == code, (said.getvalue(), complained.getvalue())
    return said.getvalue(), complained.getvalue()


@pytest.fixture(scope="module", autouse=True)
def wide_terminal() -> Iterator[None]:
    with (
        mock.patch.object(terminal.out, "_width", 200),
        mock.patch.object(terminal.err, "_width", 200),
    ):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_two: None) -> Path:
    """A job file with relative paths in a folder of its own, and its finished result."""
    folder = tmp_path_factory.mktemp("cli")
    archive = Archive(folder / "archive")
    archive.add("a", targets(3)[:300, :500], nodata=None, properties={"eo:cloud_cover": 5.0})
    archive.save()
    document = archive.job(folder / "out.zarr").model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["source"]["catalog"] = "archive/catalog.json"
    document["output"] = "results/out.zarr"
    document["tasks"] = {"find": ["ship"], "describe": True}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    said, _ = earthgptx("run", folder / "job.yaml")
    (folder / "said.txt").write_text(said)
    return folder


def job_with(folder: Path, **changes: Any) -> Path:
    document = yaml.safe_load((folder / "job.yaml").read_text())
    for key, value in changes.items():
        place, *keys = key.split("__")
        target = document
        while keys:
            target, place = target[place], keys.pop(0)
        target[place] = value
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    said = CliRunner().invoke(app, [command, "--help"], terminal_width=200)
    assert said.exit_code == 0
    assert f"Example: earthgptx {command} " in " ".join(said.output.split())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("tiny", 0.3, 1), ("nano", 10, 20), ("small", 130, 180), ("base", 7000, 9000)],
)
def test_a_scale_is_described_without_its_weights(name: str, low: float, high: float) -> None:
    facts = json.loads(earthgptx("model", "describe", name, "--json")[0])
    total = sum(facts["parameters"].values())
    assert low * 1e6 < total < high * 1e6
    assert facts["bytes_fp32"] == 2 * facts["bytes_bf16"] == 4 * total
    assert (
        facts["image_tokens"]
        == 1 + (facts["config"]["image_px"] // facts["config"]["token_px"]) ** 2
    )
    said, _ = earthgptx("model", "describe", name)
    assert "language" in said
    assert "keys and values" in said


def test_a_mistake_leaves_the_process_with_code_2_and_no_traceback(folder: Path) -> None:
    ended = subprocess.run(
        [Path(sys.executable).parent / "earthgptx", "plan", job_with(folder, sources={})],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "unknown key 'sources'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_commands_are_those_of_the_readme() -> None:
    assert set(get_group(app).commands) - {"model"} == set(COMMANDS)
    readme = (REPO / "README.md").read_text()
    for command in COMMANDS:
        assert f"earthgptx {command}" in readme or command in ("sample", "demo"), command


def test_a_run_ends_with_what_was_done_and_where_it_is(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    assert said.startswith("done: 1 blocks, 12 tiles analysed, 0 empty, ")
    assert said.rstrip().endswith(str(folder / "results" / "out.zarr"))


def test_search_freezes_the_items_and_a_job_over_them_is_the_same_plan(folder: Path) -> None:
    fresh = job_with(folder, output="results/fresh.zarr")
    said, _ = earthgptx("search", fresh)
    assert "1 items" in said
    frozen = folder / "results" / "fresh.items.parquet"
    assert frozen.is_file()
    listed = json.loads(earthgptx("search", fresh, "--json")[0])
    assert listed["items"][0]["cloud_cover"] == 5.0
    before = json.loads(earthgptx("plan", fresh, "--json")[0])
    access = {"folders": [str(folder)]}  # the frozen file is not where the imagery is
    job = job_with(folder, source__catalog=str(frozen), source__access=access)
    after = json.loads(earthgptx("plan", job, "--json")[0])
    assert before["series"] == after["series"]


def test_plan_tells_the_cost_and_changes_nothing(folder: Path) -> None:
    job = job_with(folder, output="elsewhere/out.zarr")
    facts = json.loads(earthgptx("plan", job, "--json")[0])
    assert (facts["blocks"], facts["tiles"], facts["items"]) == (1, 12, 1)
    assert facts["bytes_to_read"] >= 300 * 500
    assert facts["seconds_per_tile"] > 0
    assert not (folder / "elsewhere").exists()
    said, _ = earthgptx("plan", job)
    assert "series" in said
    assert "memory bound" in said


def test_status_counts(folder: Path) -> None:
    facts = json.loads(earthgptx("status", folder / "results/out.zarr", "--json")[0])
    assert (facts["state"], facts["blocks"], facts["pixels"]) == ("finished", 1, {"done": 1.0})
    assert "finished" in earthgptx("status", folder / "results/out.zarr")[0]


def test_query_in_every_format(folder: Path, tmp_path: Path) -> None:
    out = folder / "results/out.zarr"
    table, _ = earthgptx("query", out, "--label", "ship", "--min-score", "0.9")
    assert "ship, about" in table
    document = json.loads(earthgptx("query", out, "--format", "geojson")[0])
    count = len(document["features"])
    assert count > 3
    assert json.loads(earthgptx("query", out, "--json")[0]) == document
    earthgptx("query", out, "--format", "parquet", "--out", tmp_path / "o.parquet")
    assert len(gpd.read_parquet(tmp_path / "o.parquet")) == count
    some = document["features"][0]["geometry"]
    west = min(x for x, _ in some["coordinates"][0]) if some["type"] == "Polygon" else 3.0
    near = json.loads(
        earthgptx("query", out, "--json", "--bbox", west - 1e-5, 42, west + 1e-5, 43)[0]
    )
    assert 0 < len(near["features"]) < count
    area = tmp_path / "area.geojson"
    area.write_text(
        json.dumps({"type": "Polygon", "coordinates": [[[9, 42], [10, 42], [10, 43], [9, 42]]]})
    )
    _, complained = earthgptx("query", out, "--json", "--within", area, code=2)
    assert "nothing was seen there: the ground is 3 to 3.0" in complained


def test_query_sorts_counts_and_asks_several_results(folder: Path, tmp_path: Path) -> None:
    out = folder / "results/out.zarr"
    longest = earthgptx("query", out, "--json", "--order=-length_m", "--limit", "3")[0]
    lengths = [each["properties"]["length_m"] for each in json.loads(longest)["features"]]
    assert len(lengths) == 3
    assert lengths == sorted(lengths, reverse=True)
    counted = json.loads(earthgptx("query", out, "--json", "--count-by", "label,month")[0])
    assert {row["label"] for row in counted} == {"ship"}
    total = sum(row["objects"] for row in counted)
    catalog = pystac.Catalog("results", "published results")
    item = pystac.Item.from_file(out.with_suffix(".item.json"))
    item.make_asset_hrefs_absolute()
    catalog.add_item(item)
    catalog.normalize_and_save(str(tmp_path), pystac.CatalogType.SELF_CONTAINED)
    path = tmp_path / "catalog.json"
    [one] = json.loads(
        earthgptx("query", out.with_suffix(".item.json"), "--json", "--count-by", "slice")[0]
    )
    assert one["objects"] == total
    [both] = json.loads(earthgptx("query", out, path, "--json", "--count-by", "result")[0])
    assert both["objects"] == 2 * total
    said, _ = earthgptx(
        "query", out, path, "--near", "3.02", "42.44", "800", "--order", "distance_m"
    )
    assert "2 objects" in said
    for wrong, sentence in (
        (["--count-by", "colour"], "not counted by 'colour'"),
        (["--order", "beauty"], "not sorted by 'beauty'"),
        (["--label", "tank"], "no object has the label 'tank'; there are ship"),
        (["--time", "2031"], "there is imagery from 2026-0"),
        (["--count-by", "label", "--limit", "3"], "--count-by prints counts"),
    ):
        _, complained = earthgptx("query", out, *wrong, code=2)
        assert sentence in " ".join(complained.split())
    empty = pystac.Catalog("empty", "nothing")
    empty.normalize_and_save(str(tmp_path / "e"), pystac.CatalogType.SELF_CONTAINED)
    _, complained = earthgptx("query", tmp_path / "e/catalog.json", code=2)
    assert "holds no Item of a result" in " ".join(complained.split())


def test_why_show_and_export(folder: Path, tmp_path: Path) -> None:
    out = folder / "results/out.zarr"
    [answer] = json.loads(earthgptx("why", out, 3.01, 42.44, "--json")[0])
    assert answer["status"] == "done"
    earthgptx("show", out, "--png", tmp_path / "a.png")
    assert imread(tmp_path / "a.png").shape[1] > 600
    said, _ = earthgptx("export", out, tmp_path / "gis")
    written = [Path(line) for line in said.split()]
    assert [path.suffix for path in written] == [*[".tif"] * 4, ".fgb", ".csv", ".qgs"] + [
        ".json"
    ] * 2
    assert all(path.is_file() for path in written)
    _, complained = earthgptx("export", out, tmp_path / "gis", code=2)
    assert "gis is not an empty folder; name a new one" in " ".join(complained.split())
    asked = ("--as", "stack", "--objects", "kml", "--objects", "geojson")
    said, _ = earthgptx("export", out, tmp_path / "stack", *asked)
    assert {"objects.kml", "objects.geojson"} <= {Path(line).name for line in said.split()}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sources": {}}, "unknown key 'sources'; did you mean 'source'?"),
        (
            {"source__colections": ["a"]},
            "unknown key 'source.colections'; did you mean 'collections'?",
        ),
        ({"engine": {"replicas": "many"}}, "'engine.replicas': input should be a valid integer"),
        ({"source__aoi": {"bbox": [20, 0, 21, 1]}}, "source.aoi lies outside all 1 items"),
        ({"source__aoi": "nowhere.geojson"}, "source.aoi: cannot read"),
        ({"source__time": "2019", "output": "results/new.zarr"}, "no item of"),
        ({"source__filter": "eo:cloud_cover <"}, "is no CQL2 text"),
        ({"source__collections": ["other"]}, "collection 'other' is not known"),
        ({"grid": {"tile_px": 256, "halo_px": 64, "block_px": 500}}, "the nearest that is: 512"),
        (
            {"grid": {"tile_px": 150, "halo_px": 64, "block_px": 500}},
            "the smallest tile for this halo is 192",
        ),
        (
            {"grid": {"tile_px": 256, "halo_px": 32, "block_px": 576}},
            "does not exceed the 40 px of context",
        ),
        (
            {"prompts": {"from": "no.geojson"}, "tasks": {"refer": True}},
            "prompts.from: cannot read",
        ),
        ({"tasks": {}}, "nothing is asked for"),
        ({"model": "nothing:There"}, "no analyst 'nothing:There'"),
        ({"output": "results/out.tif"}, "does not end in .zarr"),
        ({"tasks": {"find": ["other"]}}, "holds the result of another series (differs in tasks)"),
    ],
)
def test_a_mistake_is_one_sentence_and_code_2(
    folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    _, said = earthgptx("run", job_with(folder, **changes), code=2)
    assert said.count("error:") == 1
    assert sentence in said
    assert (folder / "results/out.zarr/zarr.json").is_file()


def test_what_does_not_answer_is_one_sentence_and_code_3(folder: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    job = job_with(folder, source__catalog=nowhere)
    for command, sentence in (
        (("run", job), nowhere),
        (("submit", folder / "job.yaml", "--shared", "/", "--address", nowhere), "does not answer"),
    ):
        _, said = earthgptx(*command, code=3)
        assert said.count("error:") == 1
        assert sentence in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("run", "nowhere.yaml"), "cannot read the job file nowhere.yaml"),
        (("model", "describe", "huge"), "huge is no folder, and no id of the form owner/name"),
        (("status", "nowhere.zarr"), "nowhere.zarr holds no Zarr store"),
        (("query", "OUT", "--bbox", 2, 1, 1, 2), "is not west south east north"),
        (("query", "OUT", "--format", "parquet"), "needs --out FILE"),
        (("query", "OUT", "--time", "soon"), "is no interval"),
        (("why", "OUT", 50, 50), "lies outside the result"),
        (("query", "OUT", "--min-score", 2), "should be less than or equal to 1"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_code_2(
    folder: Path, arguments: tuple[object, ...], sentence: str
) -> None:
    named = {"OUT": folder / "results/out.zarr", "JOB": folder / "job.yaml"}
    _, said = earthgptx(*(named.get(str(each), each) for each in arguments), code=2)
    assert sentence in " ".join(said.replace("│", " ").split())


def test_a_job_that_fails_ends_with_code_1_and_says_the_reason(folder: Path) -> None:
    job = job_with(folder, model="tests.analysts:Unloadable", output="results/failed.zarr")
    _, said = earthgptx("run", job, code=1)
    assert "no weights here" in said


def test_prompts_that_cannot_be_asked_are_said_at_the_end(folder: Path) -> None:
    points = gpd.GeoSeries(gpd.points_from_xy([3.02, 9.0], [42.44, 42.44]), crs=4326)
    gpd.GeoDataFrame({"id": ["here", "far"]}, geometry=points).to_file(folder / "points.geojson")
    job = job_with(
        folder,
        prompts={"from": "points.geojson"},
        tasks={"refer": True},
        output="results/points.zarr",
        source__aoi={"bbox": [2, 40, 4, 44]},
    )
    said, _ = earthgptx("run", job)
    assert "not asked: 1 prompts, for example far: outside the AOI" in said
    answers = open_result(str(folder / "results/points.zarr")).answers
    assert answers["prompt_id"].tolist() == ["here"]
    assert np.isfinite(answers["score"]).all()


def test_the_version_is_the_packages() -> None:
    assert earthgptx("--version")[0].strip() == importlib.metadata.version("earthgptx")


@pytest.mark.parametrize("arguments", [("run", "none.yaml"), ("why", "none.zarr", 0, 0)])
def test_a_message_is_a_sentence_with_an_end(arguments: tuple[object, ...]) -> None:
    _, complained = earthgptx(*arguments, code=2)
    assert complained.startswith("error: ")
    assert complained.endswith((".\n", "?\n"))


def test_a_shell_completes_the_commands() -> None:
    typed = {"COMP_WORDS": "earthgptx qu", "COMP_CWORD": "1"}
    ended = subprocess.run(
        [Path(sys.executable).with_name("earthgptx")],
        env=os.environ | typed | {"_EARTHGPTX_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == ["query"]
