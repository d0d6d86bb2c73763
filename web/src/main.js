/** The map of results: layers by range requests of their Zarr stores, objects by the server's queries. */

import Map from "ol/Map.js";
import View from "ol/View.js";
import ImageLayer from "ol/layer/Image.js";
import VectorLayer from "ol/layer/Vector.js";
import WebGLTileLayer from "ol/layer/WebGLTile.js";
import GeoJSON from "ol/format/GeoJSON.js";
import Feature from "ol/Feature.js";
import Point from "ol/geom/Point.js";
import ScaleLine from "ol/control/ScaleLine.js";
import { defaults as controls } from "ol/control/defaults.js";
import ImageStatic from "ol/source/ImageStatic.js";
import GeoZarr from "ol/source/GeoZarr.js";
import VectorSource from "ol/source/Vector.js";
import { Circle, Fill, Stroke, Style, Text } from "ol/style.js";
import { fromLonLat, toLonLat, transformExtent } from "ol/proj.js";
import { register } from "ol/proj/proj4.js";
import proj4 from "proj4";

import { address, ask, place } from "./api.js";
import { CHANGES, STATUSES, colourOf, nameColours, rasterStyle } from "./colours.js";

const $ = (id) => document.getElementById(id);
const MAP = "EPSG:3857";
const geojson = new GeoJSON({ dataProjection: "EPSG:4326", featureProjection: MAP });
const state = { number: 0, about: null, slice: 0, other: "", hit: "", requests: null, restoring: false };

// Messages

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

const told = (work) => (...given) =>
  work(...given).catch((error) => { if (error.name !== "AbortError") say(error.message); });

// Once, and given back: a page may have few contexts.
const hasWebGL = (() => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
})();

// Maps: one, or two side by side that share their view

const view = new View({ center: [0, 0], zoom: 2, maxZoom: 24 });
const sides = [makeSide("map"), null];

function makeSide(target) {
  const outlines = new VectorSource();
  const side = {
    outlines,
    scenes: [],
    rasters: [],
    vector: new VectorLayer({ source: outlines, style: styleOf, zIndex: 10, declutter: true }),
    map: new Map({
      target, view, layers: [],
      controls: controls().extend([new ScaleLine()]),
    }),
  };
  side.map.addLayer(side.vector);
  side.map.on("click", (event) => detail(side, event));
  side.map.getViewport().addEventListener("contextmenu", told(async (event) => {
    event.preventDefault();
    await why(toLonLat(side.map.getEventCoordinate(event)));
  }));
  side.map.on("moveend", told(async () => { share(); await refresh(); }));
  $(target).map = side.map; // for tests
  countFrames(side.map);
  return side;
}

function styleOf(feature) {
  const label = feature.get("change") ?? feature.get("label");
  const colour = feature.get("change") ? CHANGES[label] : colourOf(label);
  const count = feature.get("objects");
  if (count) {
    return new Style({
      image: new Circle({ radius: Math.min(6 + 3 * Math.log10(count), 22), fill: new Fill({ color: `${colour}c0` }) }),
      text: new Text({ text: String(count), fill: new Fill({ color: "#101418" }), font: "11px system-ui" }),
    });
  }
  const hit = state.hit && feature.get("object_id") === state.hit;
  const named = view.getResolution() < 3 || hit;
  const words = `${label} ${Number(feature.get("score")).toFixed(2)}`;
  return new Style({
    stroke: new Stroke({ color: colour, width: hit ? 4 : 1.5 }),
    fill: new Fill({ color: `${colour}22` }),
    text: named ? new Text({ text: words, overflow: true, offsetY: -12, fill: new Fill({ color: colour }), stroke: new Stroke({ color: "#101418", width: 3 }), font: "12px system-ui" }) : undefined,
  });
}

function shownSlice(side) {
  const slices = state.about.slices;
  return side === sides[0] ? slices[state.slice] : slices.find((each) => each.name === state.other);
}

/** Draws the layers of a side anew. */
function draw(side) {
  const slice = shownSlice(side), layer = $("layer").value, drawn = slice ? `${state.number} ${layer}` : "";
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
  for (const zone of state.about.zones) {
    if ($("scene").checked) {
      const url = address(`api/${state.number}/scene.png`, { zone: zone.path, slice: slice.name });
      const source = new ImageStatic({ url, projection: zone.code, imageExtent: zone.extent, interpolate: false });
      side.scenes.push(new ImageLayer({ source, zIndex: 0 }));
    }
    if (!stays && layer && hasWebGL && zone.has_code) {
      const source = new GeoZarr({
        url: place(`store/${state.number}${zone.path && `/${zone.path}`}`),
        bands: [layer], dimensions: { time: slice.at }, resample: "nearest", transition: 0, wrapX: false,
      });
      side.rasters.push(new WebGLTileLayer({
        source, style: rasterStyle(layer, state.about), opacity: Number($("opacity").value), zIndex: 5,
      }));
    }
  }
  for (const each of stays ? side.scenes : [...side.scenes, ...side.rasters]) side.map.addLayer(each);
}

/** Asks for the objects of the view, on each side. */
async function refresh() {
  if (!state.about) return;
  state.requests?.abort();
  state.requests = new AbortController();
  const { signal } = state.requests;
  await Promise.all(sides.filter(Boolean).map((side) => refreshSide(side, signal))).catch((error) => {
    if (error.name !== "AbortError") throw error;  // the map has moved on
  });
  if (!signal.aborted) say(standing());
}

/** What holds as long as the result is shown. */
function standing() {
  if (!state.about.slices.length) return "no time slice of this result is finished yet";
  if (!hasWebGL) return "this browser has no WebGL: the scene and the objects are shown, and no layers";
  if (!state.about.zones.every((zone) => zone.has_code)) return "its CRS has no EPSG code: the scene and the objects are shown, and no layers";
  return "";
}

async function refreshSide(side, signal) {
  const slice = shownSlice(side);
  side.vector.setVisible($("objects").checked);
  if (!slice || !$("objects").checked || !side.map.getSize()) return;
  if ($("changes").checked && state.other && state.other !== state.about.slices[state.slice].name) return changes(side, signal);
  const asked = { slice: slice.name, bbox: boundsOfView(side).join(","), min_score: $("score").value, label: $("label").value, text: $("text").value.trim() };
  const found = await ask(`api/${state.number}/objects`, asked, signal);
  side.outlines.clear();
  if (found.features) {
    side.outlines.addFeatures(found.features.map((each) => geojson.readFeature(each)));
  } else {
    side.outlines.addFeatures(found.places.map((each) => {
      const feature = new Feature(new Point(fromLonLat([each.lon, each.lat])));
      feature.setProperties(each);
      return feature;
    }));
  }
  if (side === sides[0]) $("footer").dataset.objects = found.total;
  footer();
}

async function changes(side, signal) {
  const [before, after] = [state.other, state.about.slices[state.slice].name];
  const found = await ask(`api/${state.number}/changes`, { before, after }, signal);
  side.outlines.clear();
  side.outlines.addFeatures(geojson.readFeatures(found));
}

function boundsOfView(side) {
  const [west, south, east, north] = transformExtent(view.calculateExtent(side.map.getSize()), MAP, "EPSG:4326");
  const [low, high] = [Math.max(south, -90), Math.min(north, 90)];
  const turned = (lon) => ((((lon + 180) % 360) + 360) % 360) - 180;
  const [first, last] = [turned(west), turned(east)];
  // West exceeds east across the antimeridian, as long as that is narrow.
  if (east - west >= 180 && (east - west >= 360 || first >= last)) return [-180, low, 180, high];
  return [first, low, last, high];
}

// Details

function row(list, name, value) {
  if (value === "" || value == null) return;
  const term = document.createElement("dt"), said = document.createElement("dd");
  term.textContent = name; said.textContent = value;  // words of a model or a file: never as HTML
  list.append(term, said);
}

function open(title, fill) {
  const box = $("detail"), heading = document.createElement("h2"), list = document.createElement("dl");
  heading.textContent = title;
  box.replaceChildren(heading, list);
  fill(list, box);
  box.hidden = false;
}

function detail(side, event) {
  const feature = side.map.forEachFeatureAtPixel(event.pixel, (each) => each, { hitTolerance: 4 });
  $("detail").hidden = !feature;
  if (!feature) return;
  if (feature.get("objects")) {
    view.animate({ center: feature.getGeometry().getCoordinates(), zoom: view.getZoom() + 2, duration: 300 });
    $("detail").hidden = true;
    return;
  }
  const it = feature.getProperties();
  open(it.label, (list, box) => {
    const bounds = it.bounds ?? transformExtent(feature.getGeometry().getExtent(), MAP, "EPSG:4326");
    const image = document.createElement("img");
    image.alt = "the scene there";
    image.src = address(`api/${state.number}/crop.png`, { slice: shownSlice(side).name, bbox: bounds.join(",") });
    image.addEventListener("error", () => image.replaceWith("the imagery cannot be read now"));
    box.insertBefore(image, list);
    row(list, "caption", it.caption);
    row(list, "score", Number(it.score).toFixed(3));
    row(list, "change", it.change);
    if (it.length_m) row(list, "size", `${it.length_m.toFixed(0)} x ${it.width_m.toFixed(0)} m, ${it.area_m2.toFixed(0)} m²`);
    row(list, "time", it.time);
    row(list, "Item", it.item_id);
    row(list, "prompt", it.prompt_ids && `${it.prompt_kind}: ${it.prompt_ids}`);
    row(list, "model", it.model && `${it.model} ${it.model_digest}`);
    row(list, "id", it.object_id);
    if (it.track_id) row(list, "track", it.track_id);
  });
}

async function why([lon, lat]) {
  const found = await ask(`api/${state.number}/why`, { lon, lat });
  open(`${lat.toFixed(5)}, ${lon.toFixed(5)}`, (list) => {
    for (const each of found) {
      const said = [each.status, each.label && `${each.label} ${each.score}`, each.reason];
      row(list, each.time.slice(0, 10), said.filter(Boolean).join("; "));
    }
  });
}

// Search

function asked() {
  const bbox = $("here").checked ? boundsOfView(sides[0]).join(",") : "";
  return { text: $("text").value.trim(), label: $("label").value, time: $("time").value.trim(), min_score: $("score").value, bbox };
}

async function search() {
  const found = await ask(`api/${state.number}/search`, asked());
  const count = found.features.length;
  $("found").textContent = count ? `${found.more ? "the first " : ""}${count} objects, the surest first` : "nothing found";
  $("hits").replaceChildren(...found.features.map((each) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const it = each.properties;
    button.type = "button";
    button.textContent = `${it.label} ${it.score.toFixed(2)} ${it.time.slice(0, 10)}: ${it.caption}`;
    button.addEventListener("click", told(() => fly(each)));
    item.append(button);
    return item;
  }));
  await refresh();
  share();
}

async function fly(hit) {
  const start = hit.properties.slice;
  const at = state.about.slices.findIndex((each) => each.start === start);
  if (at >= 0 && at !== state.slice) { state.slice = at; sliceChanged(); }
  state.hit = hit.properties.object_id;
  const feature = geojson.readFeature(hit);
  await new Promise((done) => view.fit(feature.getGeometry().getExtent(), { maxZoom: 17, padding: [80, 80, 80, 80], duration: 400, callback: done }));
  await refresh();
  share();
}

// The panel

function legend() {
  const layer = $("layer").value;
  const entries = layer === "status"
    ? Object.entries(STATUSES).map(([value, colour]) => [colour, state.about.status[value]])
    : layer === "score" ? [["#1e3c78", "0"], ["#fad25a", "0.5"], ["#f03c3c", "1"]]
    : state.about.phrases.map((phrase) => [colourOf(phrase), phrase]);
  const shown = $("changes").checked ? Object.entries(CHANGES).map(([word, colour]) => [colour, word]) : entries;
  $("legend").replaceChildren(...shown.map(([colour, word]) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = colour;
    item.append(swatch, word);
    return item;
  }));
}

function footer() {
  const slice = state.about.slices[state.slice], count = $("footer").dataset.objects ?? "";
  $("footer").textContent = slice
    ? `${slice.objects} objects in ${slice.name}, ${count} in this view; ${slice.failed} of ${slice.tiles} tiles failed`
    : "";
}

function sliceChanged() {
  const slice = state.about.slices[state.slice];
  $("slice").value = state.slice;
  $("slice-name").textContent = slice ? `${slice.name} (${slice.items} Items)` : "none";
  sides.filter(Boolean).forEach(draw);
  legend();
  footer();
}

const change = told(async () => { sliceChanged(); await refresh(); share(); });
/** What concerns objects alone leaves the layers as they are. */
const objectsChange = told(async () => { legend(); await refresh(); share(); });

function compare(name) {
  state.other = name;
  $("map-other").hidden = !name;
  if (name && !sides[1]) sides[1] = makeSide("map-other");
  requestAnimationFrame(() => sides.filter(Boolean).forEach((side) => side.map.updateSize()));
  change();
}

async function load(number) {
  const about = await ask(`api/${number}/about`);
  Object.assign(state, { number, about, other: "", hit: "" });
  for (const id of ["hits", "found", "detail"]) $(id).replaceChildren();
  $("detail").hidden = $("map-other").hidden = true;
  for (const zone of about.zones) {
    proj4.defs(zone.code, zone.proj4);
  }
  register(proj4);
  nameColours(about.phrases);
  state.slice = Math.max(about.slices.length - 1, 0);
  $("slice").max = state.slice;
  $("label").replaceChildren(new Option("any", ""), ...about.phrases.map((phrase) => new Option(phrase, phrase)));
  $("other").replaceChildren(new Option("nothing", ""), ...about.slices.map((each) => new Option(each.name, each.name)));
  document.title = `${about.name} - earthgptx`;
  const states = { running: "a run is under way: what is finished is shown", error: "its last run ended by an error: what is finished is shown", canceled: "its last run was ended: what is finished is shown" };
  $("state").textContent = states[about.state] ?? "";
  say(standing());
  const [west, south, east, north] = about.bounds;
  const extent = transformExtent([west, south, east + (east < west ? 360 : 0), north], "EPSG:4326", MAP);
  view.fit(extent, { size: sides[0].map.getSize(), padding: [20, 20, 20, 20] });
}

/** Keeps what is shown in the address, which can be passed on. */
function share() {
  if (state.restoring || !state.about) return;
  const [lon, lat] = toLonLat(view.getCenter());
  const shown = {
    result: state.number, slice: state.about.slices[state.slice]?.name ?? "", layer: $("layer").value,
    at: `${lon.toFixed(6)},${lat.toFixed(6)},${view.getZoom().toFixed(2)}`,
    text: $("text").value, label: $("label").value, score: $("score").value, other: state.other,
  };
  const given = Object.entries(shown).filter(([, value]) => value !== "");
  history.replaceState(null, "", `#${new URLSearchParams(given)}`);
  for (const format of ["geojson", "parquet"]) {
    $(format).href = address(`api/${state.number}/download`, { ...asked(), format });
  }
}

async function restore() {
  state.restoring = true;
  try {
    await restored(new URLSearchParams(location.hash.slice(1)));
  } finally {
    state.restoring = false;
  }
  share();
  document.body.dataset.ready = "yes";
}

async function restored(shown) {
  const results = await ask("api/results");
  $("result").replaceChildren(...results.map((url, at) => new Option(url.split("/").pop(), at)));
  const number = Math.min(Number(shown.get("result") ?? 0) || 0, results.length - 1);
  $("result").value = number;
  await load(number);
  if (shown.has("layer") || shown.has("at")) $("layer").value = shown.get("layer") ?? "";
  for (const name of ["text", "label", "score"]) if (shown.has(name)) $(name).value = shown.get(name);
  $("score-shown").textContent = $("score").value;
  const at = state.about.slices.findIndex((each) => each.name === shown.get("slice"));
  if (at >= 0) state.slice = at;
  const [lon, lat, zoom] = (shown.get("at") ?? "").split(",").map(Number);
  if ([lon, lat, zoom].every(Number.isFinite) && zoom) { view.setCenter(fromLonLat([lon, lat])); view.setZoom(zoom); }
  sliceChanged();
  if (shown.get("other")) { $("other").value = shown.get("other"); compare(shown.get("other")); }
  if ($("text").value) await search(); else await refresh();
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

$("result").addEventListener("change", told(async () => { await load(Number($("result").value)); sliceChanged(); await refresh(); share(); }));
$("slice").addEventListener("input", () => { state.slice = Number($("slice").value); change(); });
for (const id of ["layer", "scene"]) $(id).addEventListener("change", change);
for (const id of ["objects", "changes", "score", "label", "time", "here"]) $(id).addEventListener("change", objectsChange);
$("opacity").addEventListener("input", () => {
  for (const side of sides.filter(Boolean)) for (const each of side.rasters) each.setOpacity(Number($("opacity").value));
});
$("score").addEventListener("input", () => { $("score-shown").textContent = $("score").value; });
$("other").addEventListener("change", () => compare($("other").value));
$("search").addEventListener("submit", (event) => { event.preventDefault(); told(search)(); });
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  if (event.key === "/") { event.preventDefault(); $("text").focus(); }
  if (event.key === "Escape") $("detail").hidden = true;
  const step = { "[": -1, "]": 1 }[event.key];
  if (step && state.about?.slices[state.slice + step]) { state.slice += step; change(); }
});

window.addEventListener("hashchange", told(restore));
told(restore)();
