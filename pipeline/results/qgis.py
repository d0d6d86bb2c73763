"""A QGIS project (.qgs) over exported files: layers styled, labelled and placed in time.

Written for QGIS 3.22 and later; what QGIS has defaults for is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import pyproj
import shapely

from earthgptx.pipeline.job.lonlat import LONLAT
from earthgptx.pipeline.results.cogs import Raster, classes_of
from earthgptx.pipeline.results.colours import SCORES, colours_of, rgb
from earthgptx.pipeline.results.result import Result
from earthgptx.pipeline.results.slices_group import SliceRow
from earthgptx.pipeline.results.vectors import printable

VERSION = "3.22.0"
SHOWN = ("label", "score", "status")
"""Layers of a project; `object` only refers to the table."""
NAMED_SCALE = 25_000
"""Scale denominator up to which objects are named."""
WEB_MERCATOR = "EPSG:3857"


def project(
    result: Result, rasters: Sequence[Raster], objects: Path | None, labels: Sequence[str]
) -> bytes:
    """Returns the document of a project that lies beside the exported files.

    Rasters of each time slice are a group, the last slice's labels are visible, and QGIS's temporal
    controller plays slices and objects.

    Args:
        result: the result.
        rasters: its exported rasters.
        objects: its exported objects, in a format that QGIS reads; None for none.
        labels: labels of the objects.
    """
    phrases = result.attrs["job"]["tasks"]["find"]
    root = Element("qgis", projectname=result.attrs["job"]["name"], version=VERSION)
    crs = rasters[0].crs if len({each.crs for each in rasters}) == 1 else WEB_MERCATOR
    _crs(SubElement(root, "projectCrs"), crs)
    tree = SubElement(root, "layer-tree-group")
    canvas = SubElement(root, "mapcanvas", name="theMapCanvas")
    _extent(SubElement(canvas, "extent"), result, crs)
    _crs(SubElement(canvas, "destinationsrs"), crs)
    properties = SubElement(SubElement(root, "properties"), "SpatialRefSys")
    SubElement(properties, "ProjectionsEnabled", type="int").text = "1"
    layers = SubElement(root, "projectlayers")
    if objects is not None:
        layers.append(_objects(objects, colours_of(phrases, labels)))
        _in_tree(tree, "objects", "ogr", visible=True)
    newest = result.slices_in_time[-1:]
    for row in reversed(result.slices_in_time):
        group = SubElement(tree, "layer-tree-group", name=row.name, expanded="0")
        for raster in rasters:
            if raster.layer not in SHOWN or row.name not in raster.slices:
                continue
            if raster.layer == "label" and not classes_of(result, raster.layer):
                continue  # nothing was searched
            name = f"{raster.layer} {row.name} {raster.zone}".strip()
            layers.append(_raster(result, raster, row, name))
            visible = row in newest and raster.layer == "label"
            _in_tree(group, name, "gdal", visible=visible)
    indent(root)
    head = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + tostring(root, encoding="utf-8")


def _in_tree(parent: Element, name: str, provider: str, *, visible: bool) -> None:
    told = {"id": _id(name), "name": name, "providerKey": provider}
    told["checked"] = "Qt::Checked" if visible else "Qt::Unchecked"
    SubElement(parent, "layer-tree-layer", told)


def _crs(parent: Element, text: str) -> None:
    crs = pyproj.CRS.from_user_input(text)
    code = crs.to_epsg()
    known = SubElement(parent, "spatialrefsys", nativeFormat="Wkt")
    _text(known, "wkt", crs.to_wkt())
    if code is not None:
        _text(known, "authid", f"EPSG:{code}")


def _extent(parent: Element, result: Result, crs: str) -> None:
    move = pyproj.Transformer.from_crs(LONLAT, crs, always_xy=True)
    bounds = shapely.transform(result.ground, move.transform, interleaved=False).bounds
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True):
        _text(parent, name, repr(value))


def _text(parent: Element, name: str, text: str) -> None:
    SubElement(parent, name).text = text


def _id(name: str) -> str:
    """Returns a layer's id: word characters, and not so few that QGIS makes an id of its own."""
    return "earthgptx_" + re.sub(r"\W", "_", name)


def _layer(kind: str, name: str, source: str, provider: str, crs: str) -> Element:
    layer = Element("maplayer", type=kind)
    _text(layer, "id", _id(name))
    _text(layer, "datasource", f"./{source}")
    _text(layer, "layername", name)
    _crs(SubElement(layer, "srs"), crs)
    _text(layer, "provider", provider)
    return layer


def _raster(result: Result, raster: Raster, row: SliceRow, name: str) -> Element:
    layer = _layer("raster", name, raster.path.name, "gdal", raster.crs)
    band = str(raster.slices.index(row.name) + 1)
    pipe = SubElement(layer, "pipe")
    classes = classes_of(result, raster.layer)
    style = {"band": band, "opacity": "0.7", "alphaBand": "-1"}
    if classes:
        renderer = SubElement(pipe, "rasterrenderer", style | {"type": "paletted"})
        palette = SubElement(renderer, "colorPalette")
        for value, (word, colour) in classes.items():
            shown = {"color": colour or "#000000", "alpha": "255" if colour else "0"}
            entry = {"value": str(value), "label": word, **shown}
            SubElement(palette, "paletteEntry", entry)
    else:
        lowest, highest = SCORES[0][0], SCORES[-1][0]
        limits = {"classificationMin": str(lowest), "classificationMax": str(highest)}
        style |= limits | {"type": "singlebandpseudocolor"}
        renderer = SubElement(pipe, "rasterrenderer", style)
        shader = SubElement(SubElement(renderer, "rastershader"), "colorrampshader")
        shader.attrib |= {"colorRampType": "INTERPOLATED", "classificationMode": "1"}
        for value, colour in SCORES:
            entry = {"value": str(value), "label": f"{value / 255:.2g}", "color": colour}
            SubElement(shader, "item", entry | {"alpha": "255"})
    played = SubElement(layer, "temporal", enabled="1", mode="0", fetchMode="0")
    span = SubElement(played, "fixedRange")
    _text(span, "start", _moment(row.start))
    _text(span, "end", _moment(row.end))
    return layer


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _objects(path: Path, colours: Mapping[str, str]) -> Element:
    layer = _layer("vector", "objects", path.name, "ogr", "EPSG:4326")
    layer.attrib |= {"geometry": "Polygon", "labelsEnabled": "1"}
    renderer = SubElement(layer, "renderer-v2", type="categorizedSymbol", attr="label")
    categories, symbols = SubElement(renderer, "categories"), SubElement(renderer, "symbols")
    for at, (label, colour) in enumerate(colours.items()):
        word = printable(label)
        drawn = {"symbol": str(at), "value": word, "label": word, "render": "true"}
        SubElement(categories, "category", drawn)
        shade = ",".join(map(str, rgb(colour)))
        symbol = SubElement(symbols, "symbol", type="fill", name=str(at), alpha="1")
        fill = SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
        options = SubElement(fill, "Option", type="Map")
        for name, value in (
            ("color", f"{shade},40"),
            ("outline_color", f"{shade},255"),
            ("outline_width", "0.5"),
            ("outline_style", "solid"),
            ("style", "solid"),
        ):
            SubElement(options, "Option", name=name, type="QString", value=value)
            SubElement(fill, "prop", k=name, v=value)  # QGIS up to 3.24 reads these
    settings = SubElement(SubElement(layer, "labeling", type="simple"), "settings")
    style = SubElement(settings, "text-style", fieldName='"label" || \' \' || round("score", 2)')
    style.attrib |= {"isExpression": "1", "fontSize": "8", "textColor": "16,20,24,255"}
    buffer = {"bufferDraw": "1", "bufferSize": "0.8", "bufferColor": "255,255,255,255"}
    SubElement(style, "text-buffer", buffer)
    visibility = {"scaleVisibility": "1", "scaleMin": "1", "scaleMax": str(NAMED_SCALE)}
    SubElement(settings, "rendering", visibility)
    SubElement(layer, "temporal", enabled="1", mode="1", startField="time", limitMode="0")
    return layer
