/** The objects of the view, as outlines or counted by places; what has changed; tracks. */

import GeoJSON from "ol/format/GeoJSON.js";
import Feature from "ol/Feature.js";
import LineString from "ol/geom/LineString.js";
import Point from "ol/geom/Point.js";
import { getCenter } from "ol/extent.js";
import { fromLonLat } from "ol/proj.js";

import { ask } from "./api.js";
import { $, hasWebGL, say } from "./page.js";
import { MAP, boundsOfView, numberOf, sides, sliceOf } from "./sides.js";
import { about, shownSlice, slices, state } from "./state.js";

export const geojson = new GeoJSON({ dataProjection: "EPSG:4326", featureProjection: MAP });
let last = { key: "", requests: null, answer: Promise.resolve() };

/** Whether objects are coloured by what has changed between two slices of one result. */
export const showsChanges = () =>
  $("changes").checked && state.other?.number === state.number && state.other.name !== shownSlice()?.name;

/** What was asked may be answered otherwise now. */
export const forget = () => { last.key = ""; };

/** Asks for the objects of the view, on each side, unless that is what was asked last. */
export function refresh() {
  const asked = sides().map(askedOf), key = JSON.stringify(asked);
  if (!about() || key === last.key) return last.answer;
  last.requests?.abort();
  const requests = new AbortController();
  last = { key, requests, answer: answered(asked, requests.signal) };
  return last.answer;
}

async function answered(asked, signal) {
  try {
    await Promise.all(sides().map((side, at) => refreshSide(side, asked[at], signal)));
    say(standing());
  } catch (error) {
    if (error.name === "AbortError") return; // the map has moved on
    last.key = "";
    throw error;
  }
}

/** What holds as long as the result is shown. */
export function standing() {
  if (!slices().length) return "no time slice of this result is finished yet";
  if (!hasWebGL) return "this browser has no WebGL: the scene and the objects are shown, and no layers";
  if (!about().zones.every((zone) => zone.has_code)) return "its CRS has no EPSG code: the scene and the objects are shown, and no layers";
  return "";
}

/** What a side asks for; nothing if it shows no objects. */
function askedOf(side) {
  const slice = sliceOf(side), number = numberOf(side);
  if (!slice || !$("objects").checked || !side.map.getSize()) return null;
  if (showsChanges()) return { number, before: state.other.name, after: shownSlice().name };
  return {
    number, slice: slice.name, bbox: boundsOfView().join(","), min_score: $("score").value,
    label: number === state.number ? $("label").value : "", text: $("text").value.trim(),
  };
}

async function refreshSide(side, asked, signal) {
  side.vector.setVisible($("objects").checked);
  if (!asked) return;
  const { number, ...given } = asked;
  const found = await ask(`api/${number}/${given.before ? "changes" : "objects"}`, given, signal);
  side.outlines.clear();
  side.outlines.addFeatures(found.features ? found.features.map((each) => geojson.readFeature(each)) : found.places.map(asPoint));
  if (side.first && !given.before) $("footer").dataset.objects = found.total;
  footer();
}

function asPoint(place) {
  const feature = new Feature(new Point(fromLonLat([place.lon, place.lat])));
  feature.setProperties(place);
  return feature;
}

export function footer() {
  const slice = shownSlice(), count = $("footer").dataset.objects ?? "";
  $("footer").textContent = slice
    ? `${slice.objects} objects in ${slice.name}, ${count} in this view; ${slice.failed} of ${slice.tiles} tiles failed`
    : "";
}

/** Shows the objects of a track, each with its time, and a line through them; returns them. */
export async function showTrack(id) {
  state.track = id;
  const found = id ? (await ask(`api/${state.number}/track`, { id })).features : [];
  const outlines = found.map((each) => geojson.readFeature(each));
  const middles = outlines.map((each) => getCenter(each.getGeometry().getExtent()));
  outlines.forEach((each, at) => each.set("name", found[at].properties.time.slice(0, 10)));
  for (const side of sides()) {
    side.track.clear();
    side.track.addFeatures(outlines.map((each) => each.clone()));
    if (middles.length > 1) side.track.addFeature(new Feature(new LineString(middles)));
  }
  return found;
}
