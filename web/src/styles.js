/** How objects, places with many of them, and tracks are drawn. */

import { Circle, Fill, Stroke, Style, Text } from "ol/style.js";

import { CHANGES, colourOf } from "./colours.js";
import { state } from "./state.js";

const DARK = "#101418";
const NAMED_M = 3; // metres a pixel up to which objects are named
const TRACK = "#ffffff";

export function styleOf(feature, view) {
  const change = feature.get("change"), label = feature.get("label");
  const colour = change ? CHANGES[change] : colourOf(label);
  const count = feature.get("objects");
  if (count) return styleOfPlace(count, colour);
  const hit = state.hit && feature.get("object_id") === state.hit;
  const named = hit || view.getResolution() < NAMED_M;
  const words = change ?? `${label} ${Number(feature.get("score")).toFixed(2)}`;
  return new Style({
    stroke: new Stroke({ color: colour, width: hit ? 4 : 1.5 }),
    fill: new Fill({ color: `${colour}22` }),
    text: named ? caption(words, colour) : undefined,
  });
}

const caption = (text, colour) => new Text({
  text, overflow: true, offsetY: -12, font: "12px system-ui",
  fill: new Fill({ color: colour }), stroke: new Stroke({ color: DARK, width: 3 }),
});

function styleOfPlace(count, colour) {
  return new Style({
    image: new Circle({ radius: Math.min(6 + 3 * Math.log10(count), 22), fill: new Fill({ color: `${colour}c0` }) }),
    text: new Text({ text: String(count), fill: new Fill({ color: DARK }), font: "11px system-ui" }),
  });
}

export function styleOfTrack(feature) {
  const name = feature.get("name");
  return new Style({
    stroke: new Stroke({ color: TRACK, width: name ? 1.5 : 2, lineDash: name ? undefined : [6, 6] }),
    text: name ? caption(name, TRACK) : undefined,
  });
}
