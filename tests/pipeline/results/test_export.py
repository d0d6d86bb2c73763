"""Exports: what other programs see of them. QGIS is Debian's, where it is installed."""

import json
import subprocess
from pathlib import Path
from xml.etree.ElementTree import parse

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pystac
import pytest
import rasterio
from pystac.validation import validate_dict
from rasterio._err import CPLE_AppDefinedError

from earthgptx import open_result, plan, run
from earthgptx.pipeline.engine.pool import ReplicaPool
from earthgptx.pipeline.errors import JobError, OutputError
from earthgptx.pipeline.results.cogs import RowNumbers
from earthgptx.pipeline.results.colours import LABELS, rgb
from earthgptx.pipeline.results.export import export, local_folder
from earthgptx.pipeline.results.query import find_objects
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.vectors import Format, write_objects
from tests.archive import two_dates

NAMES = ("2026-01-01", "2026-02-01")
PYTHON_OF_QGIS = "/usr/bin/python3"
READS_PROJECT = """
import json, sys
from qgis.core import QgsApplication, QgsProject, QgsRasterLayer, QgsMapSettings
from qgis.core import QgsMapRendererSequentialJob
from qgis.PyQt.QtCore import QSize
app = QgsApplication([], False)
app.initQgis()
project = QgsProject.instance()
opened = project.read(sys.argv[1])
layers = {}
for layer in project.mapLayers().values():
    told = {"valid": layer.isValid(), "crs": layer.crs().authid()}
    told["plays"] = layer.temporalProperties().isActive()
    renderer = layer.renderer()
    if isinstance(layer, QgsRasterLayer):
        told["style"], told["band"] = renderer.type(), renderer.usesBands()
        if told["style"] == "paletted":
            told["classes"] = {c.label: c.color.name() for c in renderer.classes()}
    else:
        told["style"] = renderer.type()
        told["classes"] = {c.value(): c.symbol().color().name() for c in renderer.categories()}
        told["count"], told["named"] = layer.featureCount(), layer.labelsEnabled()
        told["name"] = layer.labeling().settings().fieldName
    told["shown"] = project.layerTreeRoot().findLayer(layer.id()).itemVisibilityChecked()
    layers[layer.id()] = told
settings = QgsMapSettings()
order = project.layerTreeRoot().layerOrder()
settings.setLayers([layer for layer in order if layers[layer.id()]["shown"]])
settings.setDestinationCrs(project.crs())
settings.setExtent(project.mapLayer(sys.argv[2]).extent())
settings.setOutputSize(QSize(512, 512))
job = QgsMapRendererSequentialJob(settings)
job.start()
job.waitForFinished()
assert job.renderedImage().save(sys.argv[3])
print(json.dumps({"opened": opened, "crs": project.crs().authid(), "layers": layers}))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pool: ReplicaPool) -> Result:
    """Two dates and two phrases."""
    folder = tmp_path_factory.mktemp("export")
    run(plan(two_dates(folder, "ship", "white boat")), pool=pool)
    return open_result(str(folder / "out.zarr"))


@pytest.fixture(scope="module")
def exported(result: Result, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Folders of both kinds: a COG for each slice, and a stack with every format of objects."""
    folder = tmp_path_factory.mktemp("gis")
    for stack in (False, True):
        written = export(
            result, folder / str(stack), stack=stack, formats=tuple(Format) if stack else ()
        )
        there = {path for path in (folder / str(stack)).rglob("*") if path.is_file()}
        assert there == set(written)
    return {stack: folder / str(stack) for stack in (False, True)}


def cogs(folder: Path, layer: str, *, stack: bool) -> list[tuple[Path, int]]:
    """The file and band of each slice."""
    if stack:
        return [(folder / f"{layer}.tif", band) for band in (1, 2)]
    return [(folder / f"{layer}-{name}.tif", 1) for name in NAMES]


@pytest.mark.parametrize("stack", [False, True])
def test_cogs_hold_what_the_result_holds(
    result: Result, exported: dict[bool, Path], stack: bool
) -> None:
    raster = result.layer("raster").load()
    raster["score"] = (raster["score"] * 255).round()
    table = pd.read_csv(exported[stack] / "objects.csv", index_col="row")
    ids = table["object_id"].reindex(range(len(table) + 1), fill_value=0).to_numpy()
    for name in ("label", "score", "status", "object"):
        for time, (path, band) in enumerate(cogs(exported[stack], name, stack=stack)):
            with rasterio.open(path) as cog:
                assert cog.crs.to_epsg() == 32631
                assert cog.transform == rasterio.Affine(10, 0, 500_000, 0, -10, 4_700_000)
                assert cog.nodata == 0
                assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert cog.overviews(band)
                assert (
                    cog.descriptions[band - 1]
                    == raster["time"].dt.strftime("%Y-%m-%dT%H:%M:%SZ").values[time]
                )
                assert name != "label" or cog.tags()["value_2"] == "white boat"
                values = cog.read(band)
            if name == "object":
                wanted = raster["object_id"].values[time]
                assert np.array_equal(ids.astype(np.uint64)[values], wanted)
                assert values.any()
            else:
                assert np.array_equal(values, raster[name].values[time])


@pytest.mark.parametrize("stack", [False, True])
def test_labels_have_colours(exported: dict[bool, Path], stack: bool) -> None:
    for path, band in cogs(exported[stack], "label", stack=stack):
        with rasterio.open(path.with_suffix(".vrt") if stack else path) as coloured:
            assert coloured.colormap(band)[2] == (*rgb(LABELS[1]), 255)
            assert coloured.colormap(band)[0][3] == 0
            with rasterio.open(path) as plain:
                assert np.array_equal(coloured.read(band), plain.read(band))


def test_objects_are_the_same_in_every_format(result: Result, exported: dict[bool, Path]) -> None:
    wanted = result.objects.reset_index(drop=True)
    assert len(wanted) > 3
    for kind in ("fgb", "parquet", "geojson", "kml"):
        path = exported[True] / f"objects.{kind}"
        found = gpd.read_parquet(path) if kind == "parquet" else gpd.read_file(path)
        found = found.astype({"row": int}).sort_values("row").reset_index(drop=True)
        assert found["object_id"].astype(str).tolist() == wanted["object_id"].astype(str).tolist()
        words = found["description" if kind == "kml" else "caption"]
        assert words.tolist() == wanted["caption"].tolist()
        assert found["row"].tolist() == list(range(1, len(wanted) + 1))
        apart = found.to_crs(32631).area / wanted.to_crs(32631).area
        assert np.allclose(apart, 1, atol=1e-3)
    table = pd.read_csv(exported[True] / "objects.csv")
    places = gpd.points_from_xy(table["lon"], table["lat"])
    assert wanted.geometry.contains(gpd.GeoSeries(places, crs=wanted.crs)).all()


@pytest.mark.parametrize("stack", [False, True])
def test_the_collection_is_valid_and_its_files_are_there(
    result: Result, exported: dict[bool, Path], stack: bool
) -> None:
    collection = pystac.Collection.from_file(str(exported[stack] / "collection.json"))
    items = list(collection.get_items())
    assert [item.id for item in items] == list(NAMES)
    documents: list[pystac.Collection | pystac.Item] = [collection, *items]
    for each in documents:
        # The schemas of the core come with pystac; those of extensions lie on the internet.
        validate_dict(json.loads(Path(each.self_href).read_text()), extensions=[])
        for asset in each.assets.values():
            assert Path(asset.get_absolute_href() or "").is_file()
    label = items[1].assets["label"]
    classes = label.extra_fields["classification:classes"]
    assert [(each["value"], each["name"]) for each in classes] == [(1, "ship"), (2, "white_boat")]
    with rasterio.open(label.get_absolute_href()) as cog:
        assert label.extra_fields["proj:code"] == f"EPSG:{cog.crs.to_epsg()}"
        assert label.extra_fields["proj:shape"] == list(cog.shape)
        assert label.extra_fields["proj:transform"] == list(cog.transform)[:6]
        bands = [each["name"] for each in label.extra_fields.get("bands", [])]
        assert len(bands) == (cog.count if stack else 0)
    counts = [item.properties["earthgptx:objects"] for item in items]
    assert sum(counts) == len(result.objects)


def has_qgis() -> bool:
    if not Path(PYTHON_OF_QGIS).exists():
        return False
    asked = [PYTHON_OF_QGIS, "-c", "import qgis.core"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("stack", [False, True])
def test_qgis_opens_the_project_styled_and_labelled(
    result: Result, exported: dict[bool, Path], tmp_path: Path, stack: bool
) -> None:
    if not has_qgis():
        pytest.skip("QGIS is not installed (Debian: python3-qgis)")
    shown = "earthgptx_label_2026_02_01"
    picture = tmp_path / "map.png"
    ended = subprocess.run(
        [PYTHON_OF_QGIS, "-c", READS_PROJECT, exported[stack] / "project.qgs", shown, picture],
        env={"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["opened"]
    assert found["crs"] == "EPSG:32631"
    layers = found["layers"]
    assert len(layers) == 1 + 3 * 2
    assert all(each["valid"] and each["plays"] for each in layers.values())
    assert {name for name, each in layers.items() if each["shown"]} == {"earthgptx_objects", shown}
    objects, label = layers["earthgptx_objects"], layers[shown]
    assert objects["crs"] == "EPSG:4326"
    assert objects["style"] == "categorizedSymbol"
    assert (
        objects["classes"]
        == label["classes"]
        == {
            "ship": LABELS[0],
            "white boat": LABELS[1],
        }
    )
    assert objects["count"] == len(result.objects)
    assert objects["named"]
    assert "label" in objects["name"]
    assert label["style"] == "paletted"
    assert label["band"] == [2 if stack else 1]
    assert layers[shown.replace("label", "score")]["style"] == "singlebandpseudocolor"
    with rasterio.open(picture) as drawn:
        pixels = drawn.read()[:3]
    apart = np.abs(pixels.astype(int) - np.array(rgb(LABELS[0]))[:, None, None]).max(axis=0)
    assert (apart < 60).mean() > 0.001


def test_a_folder_in_use_is_left_alone_and_nothing_is_half_written(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not an empty folder; name a new one"):
        export(result, used)
    assert [path.name for path in used.iterdir()] == ["mine.txt"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is not an empty folder"):
        export(result, tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        export(result, tmp_path / "file" / "below")
    with pytest.raises(OutputError, match="lies in the result itself"):
        export(result, Path(result.url) / "gis")
    with pytest.raises(JobError, match="'s3://bucket/gis' is no folder on a disk"):
        local_folder("s3://bucket/gis")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert all(path.is_file() for path in export(result, local_folder(".")))
    there = sorted(path.name for path in tmp_path.iterdir())
    for error in (OSError(28, "No space left on device"), CPLE_AppDefinedError(1, 1, "No space")):

        def full(*_: object, raised: Exception = error, **__: object) -> bytes:
            raise raised

        monkeypatch.setattr("earthgptx.pipeline.results.export.project", full)
        with pytest.raises(OutputError, match="new cannot be written: No space"):
            export(result, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == there


def test_words_that_xml_cannot_hold_break_no_kml(result: Result, tmp_path: Path) -> None:
    table = find_objects([result], limit=2)
    captions = pa.array(["a \x1b[31mship\x07", '<b>&"quoted"\nline</b>'])
    table = table.set_column(table.column_names.index("caption"), "caption", captions)
    [path] = write_objects(table, tmp_path, (Format.KML,))
    parse(path)
    found = gpd.read_file(path)
    assert found["description"].tolist() == ["a  [31mship ", '<b>&"quoted"\nline</b>']
    assert set(found["model_name"]) == set(table["model"].to_pylist())


def test_an_object_without_a_row_is_said() -> None:
    rows = RowNumbers(np.array([5, 9]))
    assert rows(np.array([0, 9, 5], np.uint64)).tolist() == [0, 2, 1]
    for odd in (7, 10):
        with pytest.raises(OutputError, match="objects that its table has not"):
            rows(np.array([odd], np.uint64))
    empty = RowNumbers(np.array([], np.int64))
    assert empty(np.zeros(3, np.uint64)).tolist() == [0, 0, 0]
    with pytest.raises(OutputError, match="objects that its table has not"):
        empty(np.array([7], np.uint64))
