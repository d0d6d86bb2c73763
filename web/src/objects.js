/** The objects of the view, as outlines or counted by places; what has changed; tracks. */

import GeoJSON from "ol/format/GeoJSON.js";
import Feature from "ol/Feature.js";
import LineString from "ol/geom/LineString.js";
import Point from "ol/geom/Point.js";
import { getCenter } from "ol/extent.js";
import { fromLonLat } from "ol/proj.js";

import { ask } from "./api.js";
import { $, hasWebGL, say } from "./page.js";
import { MAP, boundsOfView, numberOf, sides, sliceOf, track } from "./sides.js";
import { about, otherSlice, shownSlice, slices, state } from "./state.js";

export const geojson = new GeoJSON({ dataProjection: "EPSG:4326", featureProjection: MAP });
let last = { key: "", requests: null, answer: Promise.resolve() };

/** Whether objects are coloured by what has changed between two slices of one result. */
export const showsChanges = () =>
  $("changes").checked && state.other?.number === state.number && Boolean(otherSlice()) && otherSlice() !== shownSlice();

/** The two slices that are compared, the earlier one first. */
const inTime = () => {
  const both = [otherSlice(), shownSlice()];
  return slices().indexOf(both[0]) < slices().indexOf(both[1]) ? both : both.reverse();
};

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
  if (state.missing) return state.missing;
  if (!slices().length) return "no time slice of this result is finished yet";
  if (!hasWebGL) return "this browser has no WebGL: the scene and the objects are shown, and no layers";
  if (!about().zones.every((zone) => zone.has_code)) return "its CRS has no EPSG code: the scene and the objects are shown, and no layers";
  return "";
}

/** What a side asks for; nothing if it shows no objects. */
function askedOf(side) {
  const slice = sliceOf(side), number = numberOf(side);
  if (!slice || !$("objects").checked || !side.map.getSize()) return null;
  const conditions = {
    min_score: $("score").value, text: $("text").value.trim(),
    label: number === state.number ? $("label").value : "",
  };
  if (!showsChanges()) return { number, slice: slice.name, bbox: boundsOfView().join(","), ...conditions };
  const [before, after] = inTime();
  return { number, before: before.name, after: after.name, ...conditions };
}

async function refreshSide(side, asked, signal) {
  side.vector.setVisible($("objects").checked);
  if (!asked) return;
  const { number, ...given } = asked;
  const found = await ask(`api/${number}/${given.before ? "changes" : "objects"}`, given, signal);
  side.outlines.clear();
  side.outlines.addFeatures(found.features ? found.features.map((each) => geojson.readFeature(each)) : found.places.map(asPoint));
  if (side.first) $("footer").dataset.said = given.before ? changed(given, found.features) : `${found.total} in this view`;
  footer();
}

/** Says how many objects have changed, and from when to when. */
function changed({ before, after }, features) {
  const counts = {};
  for (const { properties } of features) counts[properties.change] = (counts[properties.change] ?? 0) + 1;
  const said = Object.entries(counts).map(([change, count]) => `${count} ${change}`).join(", ");
  return `from ${before} to ${after}: ${said || "no object"}`;
}

function asPoint(place) {
  const feature = new Feature(new Point(fromLonLat([place.lon, place.lat])));
  feature.setProperties(place);
  return feature;
}

export function footer() {
  const slice = shownSlice(), said = $("footer").dataset.said ?? "";
  $("footer").textContent = slice
    ? `${slice.objects} objects in ${slice.name}, ${said}; ${slice.failed} of ${slice.tiles} tiles failed`
    : "";
}

/** Shows the objects of a track, each with its time, and a line through them; returns them. */
export async function showTrack(id) {
  state.track = id;
  const found = id ? (await ask(`api/${state.number}/track`, { id })).features : [];
  const outlines = found.map((each) => geojson.readFeature(each));
  const middles = outlines.map((each) => getCenter(each.getGeometry().getExtent()));
  outlines.forEach((each, at) => each.set("name", found[at].properties.time.slice(0, 10)));
  track.clear();
  track.addFeatures(outlines);
  if (middles.length > 1) track.addFeature(new Feature(new LineString(middles)));
  return found;
}
