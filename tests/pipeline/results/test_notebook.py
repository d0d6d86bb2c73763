"""A result in a notebook: its plot, its maps, what stands for it, and the tour of the examples."""

import html
import json
import shutil
from pathlib import Path

import matplotlib as mpl
import nbclient
import nbformat
import numpy as np
import pytest

from earthgptx import JobSpec, open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError
from earthgptx.pipeline.results import notebook
from earthgptx.pipeline.results.colours import LABELS, rgb
from earthgptx.pipeline.results.result import Result
from tests import REPO
from tests.archive import two_dates

ATTACK = "<img src=x onerror=alert(1)>"
mpl.use("agg")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    """Two dates; the name of its label is an attack on whoever shows it as HTML."""
    folder = tmp_path_factory.mktemp("notebook")
    run(plan(two_dates(folder, "ship", ATTACK)), pool=pool)
    return open_result(str(folder / "out.zarr"))


@pytest.mark.parametrize("layer", ["label", "score", "status"])
def test_a_plot_shows_what_the_raster_holds(result: Result, layer: notebook.Layer) -> None:
    axes = result.plot(layer, "2026-01-01")
    [image] = axes.get_images()
    raster = result.layer("raster").isel(time=0)
    drawn, values = np.asarray(image.get_array()), raster[layer].values
    assert np.array_equal(drawn[..., 3] > 0, values > 0)
    if layer == "label":
        assert (drawn[values == 1][:, :3] == rgb(LABELS[0])).all()
    left, right, bottom, top = image.get_extent()
    assert (left, top) == (500_000, 4_700_000)
    assert (right - left, top - bottom) == (raster.sizes["x"] * 10, raster.sizes["y"] * 10)


def test_a_large_raster_is_plotted_from_an_overview(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "PLOT_PX", 500)
    [image] = result.plot(time_slice="2026-02-01").get_images()
    overview = result.layer("overview/2").isel(time=1)
    assert np.array_equal(np.asarray(image.get_array())[..., 3] > 0, overview["label"].values > 0)
    assert max(np.asarray(image.get_array()).shape) <= 500


def test_what_is_not_there_is_said(result: Result) -> None:
    with pytest.raises(JobError, match="no time slice '2027'; there are 2026-01-01, 2026-02-01"):
        result.plot(time_slice="2027")
    with pytest.raises(JobError, match="no layer 'ndvi'"):
        result.plot("ndvi")  # type: ignore[arg-type]
    with pytest.raises(JobError, match="no zone 'north'"):
        result.plot(zone="north")


def test_a_notebook_shows_facts_and_a_picture_and_runs_no_text(result: Result) -> None:
    shown = result._repr_html_()
    assert "2: 2026-01-01 to 2026-02-01" in shown
    assert f"{len(result.objects):,}" in shown
    assert "data:image/png;base64," in shown
    assert ATTACK not in shown
    assert html.escape(ATTACK) in shown


def test_lonboard_shows_objects_by_the_colour_of_their_label(result: Result) -> None:
    found = result.query(label="ship", limit=20)
    shown = result.explore(label="ship", limit=20)
    [layer] = shown.layers
    assert layer.table.num_rows == len(found)
    assert layer.get_line_color.to_pylist()[0] == list(rgb(LABELS[0]))


def test_folium_shows_objects_where_lonboard_is_not_installed(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebook, "find_spec", lambda name: name == "folium" or None)
    page = result.explore().get_root().render()
    assert ATTACK not in page
    assert html.escape(ATTACK) in json.loads(json.dumps(page)).replace("\\u0026", "&")
    assert LABELS[0] in page
    assert result.explore(min_score=1).get_root().render()
    monkeypatch.setattr(notebook, "FOLIUM_MOST", 3)
    with pytest.raises(JobError, match="are too many for folium, which takes 3"):
        result.explore()
    monkeypatch.setattr(notebook, "find_spec", lambda _: None)
    with pytest.raises(JobError, match="no library of maps is installed"):
        result.explore()


def test_the_tour_runs(tmp_path: Path, sample_archive: Path, pool: ReplicaPool) -> None:
    """Over a result of CFAR that lies where the demo leaves that of the model."""
    shutil.copy(REPO / "examples" / "tour.ipynb", tmp_path / "tour.ipynb")
    job = JobSpec.model_validate(
        {
            "name": "sar",
            "source": {
                "catalog": str(sample_archive / "catalog.json"),
                "collections": ["sample-sar"],
                "aoi": {"bbox": [5.94, 42.985, 6.03, 43.01]},
            },
            "tasks": {"find": ["ship"], "describe": True},
            "model": "cfar",
            "output": str(tmp_path / "demo/results/sar.zarr"),
        }
    )
    run(plan(job), pool=pool)
    tour = nbformat.read(REPO / "examples" / "tour.ipynb", as_version=4)
    (tmp_path / "examples").mkdir()
    nbclient.NotebookClient(
        tour, timeout=300, resources={"metadata": {"path": str(tmp_path / "examples")}}
    ).execute()
    said = [cell["outputs"] for cell in tour.cells if cell.cell_type == "code"]
    assert all(said)
    assert "data:image/png" in said[0][0]["data"]["text/html"]
    assert any("image/png" in each.get("data", {}) for each in said[1])
    assert any("jupyter.widget" in kind for each in said[5] for kind in each.get("data", {}))
    assert "stayed" in str(said[6]) or "appeared" in str(said[6])
    assert "status='done'" in str(said[7])
