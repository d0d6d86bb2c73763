/** The maps: one, or two that share their view, side by side or one over the other. */

import Map from "ol/Map.js";
import View from "ol/View.js";
import ImageLayer from "ol/layer/Image.js";
import VectorImageLayer from "ol/layer/VectorImage.js";
import VectorLayer from "ol/layer/Vector.js";
import WebGLTileLayer from "ol/layer/WebGLTile.js";
import ScaleLine from "ol/control/ScaleLine.js";
import { defaults as controls } from "ol/control/defaults.js";
import ImageStatic from "ol/source/ImageStatic.js";
import GeoZarr from "ol/source/GeoZarr.js";
import VectorSource from "ol/source/Vector.js";
import { transformExtent } from "ol/proj.js";

import { address, place } from "./api.js";
import { rasterStyle } from "./colours.js";
import { $, hasWebGL } from "./page.js";
import { about, otherSlice, shownSlice, state } from "./state.js";
import { styleOf, styleOfTrack } from "./styles.js";

export const MAP = "EPSG:3857";
export const view = new View({ center: [0, 0], zoom: 2, maxZoom: 24 });
/** The track that is shown, on all maps. */
export const track = new VectorSource();
const made = { map: null, "map-other": null };

/** The maps that are there. */
export const sides = () => Object.values(made).filter(Boolean);

/** Makes a map, unless it is there already; `prepare` is given it once. */
export function makeSide(target, prepare) {
  if (made[target]) return;
  const outlines = new VectorSource();
  const side = {
    outlines,
    first: target === "map",
    scenes: [],
    rasters: [],
    // An image while the map moves: a million objects are as fast as one.
    vector: new VectorImageLayer({ source: outlines, style: (each) => styleOf(each, view), zIndex: 10, declutter: true, imageRatio: 1.5 }),
    map: new Map({ target, view, layers: [], controls: controls().extend([new ScaleLine()]) }),
  };
  made[target] = side;
  side.map.addLayer(side.vector);
  side.map.addLayer(new VectorLayer({ source: track, style: styleOfTrack, zIndex: 12 }));
  $(target).map = side.map; // for tests
  countFrames(side.map);
  prepare(side);
}

/** Number of the result that a side shows. */
export const numberOf = (side) => (side.first ? state.number : state.other?.number ?? state.number);

export const sliceOf = (side) => (side.first ? shownSlice() : otherSlice());

/** Draws the layers of a side anew. */
export function draw(side) {
  const slice = sliceOf(side), layer = $("layer").value, number = numberOf(side);
  const drawn = slice ? `${number} ${layer}` : "";
  // Layers of rasters stay while only the slice changes: each has a WebGL context.
  const stays = side.drawn === drawn;
  for (const each of stays ? side.scenes : [...side.scenes, ...side.rasters]) {
    side.map.removeLayer(each);
    each.dispose();
  }
  side.scenes = [];
  if (!stays) side.rasters = [];
  side.drawn = drawn;
  if (!slice) return;
  if (stays) for (const each of side.rasters) each.getSource().updateDimensions({ time: slice.at });
  for (const zone of about(number).zones) {
    if ($("scene").checked) side.scenes.push(sceneLayer(number, zone, slice));
    if (!stays && layer && hasWebGL && zone.has_code) side.rasters.push(rasterLayer(number, zone, slice, layer));
  }
  for (const each of stays ? side.scenes : [...side.scenes, ...side.rasters]) side.map.addLayer(each);
}

function sceneLayer(number, zone, slice) {
  const url = address(`api/${number}/scene.png`, { zone: zone.path, slice: slice.name });
  const source = new ImageStatic({ url, projection: zone.code, imageExtent: zone.extent, interpolate: false });
  return new ImageLayer({ source, zIndex: 0 });
}

function rasterLayer(number, zone, slice, layer) {
  const source = new GeoZarr({
    url: place(`store/${number}${zone.path && `/${zone.path}`}`),
    bands: [layer], dimensions: { time: slice.at }, resample: "nearest", transition: 0, wrapX: false,
  });
  const opacity = Number($("opacity").value);
  return new WebGLTileLayer({ source, style: rasterStyle(layer, about(number)), opacity, zIndex: 5 });
}

/** West, south, east, north of what a side shows; west exceeds east across the antimeridian. */
export function boundsOfView() {
  const [west, south, east, north] = transformExtent(view.calculateExtent(made.map.map.getSize()), MAP, "EPSG:4326");
  const [low, high] = [Math.max(south, -90), Math.min(north, 90)];
  const turned = (lon) => ((((lon + 180) % 360) + 360) % 360) - 180;
  const [first, last] = [turned(west), turned(east)];
  if (east - west >= 180 && (east - west >= 360 || first >= last)) return [-180, low, 180, high];
  return [first, low, last, high];
}

/** Counts the frames of the last second while the map moves, for benchmarks. */
function countFrames(map) {
  const times = [];
  map.on("postrender", () => {
    const now = performance.now();
    times.push(now);
    while (times[0] < now - 1000) times.shift();
    document.body.dataset.frames = times.length;
  });
}
