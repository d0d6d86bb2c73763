/** The map of results: layers by range requests of their Zarr stores, objects by the server's queries. */

import { fromLonLat, toLonLat, transformExtent } from "ol/proj.js";
import { register } from "ol/proj/proj4.js";
import proj4 from "proj4";

import { address, ask } from "./api.js";
import { CHANGES, STATUSES, colourOf, nameColours } from "./colours.js";
import { describe, detail, why } from "./details.js";
import { footer, forget, refresh, showTrack, showsChanges, standing } from "./objects.js";
import { $, onChange, say, told } from "./page.js";
import { asked, flyTo, listHits, search } from "./search.js";
import { MAP, draw, makeSide, numberOf, sides, view } from "./sides.js";
import { about, learn, shownSlice, slices, state } from "./state.js";

const STATES = {
  running: "a run is under way: what is finished is shown",
  error: "its last run ended by an error: what is finished is shown",
  canceled: "its last run was ended: what is finished is shown",
};

// What a person does

const fly = async (hit) => {
  await flyTo(hit, sliceChanged);
  describe(hit.properties, state.number, shownSlice(), follow);
  share();
};
const find = async () => { await search(fly); share(); };
const change = told(async () => { state.missing = ""; sliceChanged(); await refresh(); share(); });
/** What concerns objects alone leaves the layers as they are. */
const objectsChange = told(async () => { legend(); await refresh(); share(); });

async function follow(id) {
  const found = await showTrack(id);
  if (!found.length) throw new Error(`this result has no track ${id}`);
  $("found").textContent = `the track of an object through ${found.length} time slices`;
  listHits(found, fly);
  share();
}

async function unfollow() {
  if (!state.track) return;
  await showTrack("");
  for (const name of ["hits", "found"]) $(name).replaceChildren();
  share();
}

function prepare(side) {
  side.map.on("click", (event) => detail(side, event, follow));
  side.map.getViewport().addEventListener("contextmenu", told(async (event) => {
    event.preventDefault();
    await why(numberOf(side), toLonLat(side.map.getEventCoordinate(event)));
  }));
  side.map.on("moveend", told(async () => { share(); await refresh(); }));
}

// The panel

function legend() {
  const layer = $("layer").value;
  const entries = layer === "status"
    ? Object.entries(STATUSES).map(([value, colour]) => [colour, about().status[value]])
    : layer === "score" ? [["#1e3c78", "0"], ["#fad25a", "0.5"], ["#f03c3c", "1"]]
    : phrases().map((phrase) => [colourOf(phrase), phrase]);
  const shown = showsChanges() ? Object.entries(CHANGES).map(([word, colour]) => [colour, word]) : entries;
  $("legend").replaceChildren(...shown.map(([colour, word]) => {
    const item = document.createElement("li"), swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.backgroundColor = colour;
    item.append(swatch, word);
    return item;
  }));
}

/** Phrases of the results that are shown. */
function phrases() {
  const shown = [state.number, ...(state.other ? [state.other.number] : [])];
  return [...new Set(shown.flatMap((number) => about(number)?.phrases ?? []))];
}

function sliceChanged() {
  const slice = shownSlice();
  $("slice").value = state.slice;
  $("slice-name").textContent = slice ? `${slice.name} (${slice.items} Items)` : "none";
  sides().forEach(draw);
  legend();
  footer();
}

// Comparing

const named = (other) => (other ? `${other.number}/${other.name}` : "");

/** Shows a slice beside the first one: "NUMBER/NAME", or nothing. */
function compare(value) {
  const at = value.indexOf("/");
  state.other = value ? { number: Number(value.slice(0, at)), name: value.slice(at + 1) } : null;
  $("map-other").hidden = !value;
  if (value) makeSide("map-other", prepare);
  $("changes").disabled = Boolean(state.other) && state.other.number !== state.number;
  arrange();
  change();
}

/** Puts the maps side by side, or the second over the first up to where the handle stands. */
function arrange() {
  const swipes = Boolean(state.other) && $("how").value === "swipe";
  $("maps").classList.toggle("swipe", swipes);
  $("handle").hidden = !swipes;
  $("how").parentElement.hidden = !state.other;
  const part = swipes ? `inset(0 0 0 ${$("handle").value}%)` : "none";
  $("map-other").style.clipPath = part;
  // Once the page is laid out: what a map shows depends on its size.
  requestAnimationFrame(told(async () => {
    sides().forEach((side) => side.map.updateSize());
    await refresh();
  }));
}

function listOthers(results) {
  const groups = results.map((url, number) => {
    const group = document.createElement("optgroup");
    group.label = number === state.number ? "this result" : url.split("/").pop();
    group.append(...slices(number).map((each) => new Option(each.name, named({ number, name: each.name }))));
    return group;
  });
  const own = groups.splice(state.number, 1);
  $("other").replaceChildren(new Option("nothing", ""), ...own, ...groups);
}

// Results

async function load(number, results) {
  await learn(number);
  forget();
  Object.assign(state, { number, other: null, hit: "", track: "" });
  // Of results that cannot be opened nothing can be compared; choosing one says why.
  await Promise.all(results.map((_, at) => (state.abouts[at] ? null : learn(at).catch(() => null))));
  for (const id of ["hits", "found", "detail"]) $(id).replaceChildren();
  $("detail").hidden = $("map-other").hidden = true;
  for (const zone of Object.values(state.abouts).flatMap((each) => each.zones)) proj4.defs(zone.code, zone.proj4);
  register(proj4);
  nameColours(about().phrases);
  state.slice = Math.max(slices().length - 1, 0);
  $("slice").max = state.slice;
  $("label").replaceChildren(new Option("any", ""), ...about().phrases.map((phrase) => new Option(phrase, phrase)));
  listOthers(results);
  await showTrack("");
  arrange();
  document.title = `${about().name} - earthgptx`;
  $("state").textContent = STATES[about().state] ?? "";
  say(standing());
  const [west, south, east, north] = about().bounds;
  const extent = transformExtent([west, south, east + (east < west ? 360 : 0), north], "EPSG:4326", MAP);
  view.fit(extent, { size: sides()[0].map.getSize(), padding: [20, 20, 20, 20] });
}

// The address, which can be passed on

function share() {
  if (state.restoring || !about()) return;
  const [lon, lat] = toLonLat(view.getCenter());
  const shown = {
    result: state.number, slice: shownSlice()?.name ?? "", layer: $("layer").value,
    at: `${lon.toFixed(6)},${lat.toFixed(6)},${view.getZoom().toFixed(2)}`,
    text: $("text").value, label: $("label").value, score: $("score").value,
    other: named(state.other), how: state.other ? $("how").value : "", track: state.track,
    meet: state.other && $("how").value === "swipe" ? $("handle").value : "",
    changes: $("changes").checked ? "yes" : "",
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
    const missing = await restored(new URLSearchParams(location.hash.slice(1)));
    state.missing = missing.length ? `not there: ${missing.join(", ")}; what is there is shown` : "";
    say(standing());
  } finally {
    state.restoring = false;
  }
  share();
  document.body.dataset.ready = "yes";
}

/** Sets what an address names, as far as it is there; returns what is not. */
async function restored(shown) {
  const results = await ask("api/results"), missing = [];
  $("result").replaceChildren(...results.map((url, at) => new Option(url.split("/").pop(), at)));
  const number = Number(shown.get("result") ?? 0), known = results[number] !== undefined;
  if (!known) missing.push(`result ${shown.get("result")}`);
  $("result").value = known ? number : 0;
  await load(known ? number : 0, results);
  if (shown.has("at") && !shown.has("layer")) $("layer").value = "";
  for (const name of ["layer", "label", "how"]) {
    if (!shown.has(name)) continue;
    const offered = [...$(name).options].some((each) => each.value === shown.get(name));
    if (offered) $(name).value = shown.get(name); else missing.push(`${name} ${shown.get(name)}`);
  }
  for (const [key, id] of [["text", "text"], ["score", "score"], ["meet", "handle"]]) {
    if (shown.has(key)) $(id).value = shown.get(key);
  }
  $("score-shown").textContent = $("score").value;
  $("changes").checked = shown.get("changes") === "yes";
  const at = slices().findIndex((each) => each.name === shown.get("slice"));
  if (at >= 0) state.slice = at; else if (shown.get("slice")) missing.push(`time slice ${shown.get("slice")}`);
  const [lon, lat, zoom] = (shown.get("at") ?? "").split(",").map(Number);
  if ([lon, lat, zoom].every(Number.isFinite) && zoom) { view.setCenter(fromLonLat([lon, lat])); view.setZoom(zoom); }
  sliceChanged();
  $("other").value = shown.get("other") ?? "";
  if ($("other").value) compare($("other").value); else if (shown.get("other")) missing.push(`time slice ${shown.get("other")}`);
  if (shown.get("track")) await follow(shown.get("track")).catch(() => missing.push(`track ${shown.get("track")}`));
  else if ($("text").value) await search(fly);
  await refresh();
  return missing;
}

const choose = async () => {
  await load(Number($("result").value), await ask("api/results"));
  sliceChanged();
  await refresh();
  share();
};

makeSide("map", prepare);
onChange(["result"], told(choose));
onChange(["layer", "scene"], change);
onChange(["objects", "changes", "score", "label", "time", "here"], objectsChange);
onChange(["other"], () => compare($("other").value));
onChange(["how"], () => { arrange(); share(); });
$("handle").addEventListener("input", arrange);
onChange(["handle"], share);
$("slice").addEventListener("input", () => { state.slice = Number($("slice").value); change(); });
$("opacity").addEventListener("input", () => {
  for (const each of sides().flatMap((side) => side.rasters)) each.setOpacity(Number($("opacity").value));
});
$("score").addEventListener("input", () => { $("score-shown").textContent = $("score").value; });
$("search").addEventListener("submit", (event) => { event.preventDefault(); told(find)(); });
document.addEventListener("keydown", (event) => {
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  if (event.key === "/") { event.preventDefault(); $("text").focus(); }
  if (event.key === "Escape") { $("detail").hidden = true; told(unfollow)(); }
  const step = { "[": -1, "]": 1 }[event.key];
  if (step && slices()[state.slice + step]) { state.slice += step; change(); }
});

window.addEventListener("hashchange", told(restore));
told(restore)();
