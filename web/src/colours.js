/** Colours of labels, statuses and changes. */

export const LABELS = ["#06d6a0", "#ffd166", "#ef476f", "#4cc9f0", "#f78c6b", "#c77dff", "#90be6d", "#f9c74f"];
export const STATUSES = { 1: "#06d6a0", 3: "#36414d", 4: "#9fb3c8", 5: "#ef476f" };
export const CHANGES = {
  appeared: "#06d6a0", vanished: "#ef476f", moved: "#ffd166", stayed: "#4cc9f0",
  "not seen before": "#9fb3c8", "not seen after": "#9fb3c8",
};
const seen = new Map();

/** Begins anew: the phrases of a result come first, so that an address shows the same colours. */
export function nameColours(phrases) {
  seen.clear();
  phrases.forEach(colourOf);
}

/** Returns always the same colour for a label. */
export function colourOf(label) {
  if (!seen.has(label)) seen.set(label, LABELS[seen.size % LABELS.length]);
  return seen.get(label);
}

const CLEAR = [0, 0, 0, 0];

/** Returns a colour such as #06d6a0 as red, green, blue and opacity. */
const parts = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).concat(1);

/** Returns the style of a raster layer as OpenLayers takes it. Bands are bytes that come as 0 to 255. */
export function rasterStyle(layer, about) {
  const band = ["round", ["band", 1]];
  if (layer === "score") {
    const ramp = ["interpolate", ["linear"], ["band", 1], 0, [0, 0, 0, 0], 1, [30, 60, 120, 0.4], 128, [250, 210, 90, 0.8], 255, [240, 60, 60, 1]];
    return { color: ramp };
  }
  const known = layer === "label"
    ? about.phrases.map((phrase, at) => [at + 1, colourOf(phrase)])
    : Object.entries(STATUSES).map(([value, colour]) => [Number(value), colour]);
  if (!known.length) return { color: CLEAR };
  return { color: ["match", band, ...known.flatMap(([value, colour]) => [value, parts(colour)]), CLEAR] };
}
