/** The search: what is asked, its hits, and flying to one. */

import { ask } from "./api.js";
import { geojson, refresh } from "./objects.js";
import { $, button } from "./page.js";
import { boundsOfView, view } from "./sides.js";
import { slices, state } from "./state.js";

export function asked() {
  const bbox = $("here").checked ? boundsOfView().join(",") : "";
  return { text: $("text").value.trim(), label: $("label").value, time: $("time").value.trim(), min_score: $("score").value, bbox };
}

/** Lists what a search finds; `fly` is called with the hit that is chosen. */
export async function search(fly) {
  const found = await ask(`api/${state.number}/search`, asked());
  const count = found.features.length;
  $("found").textContent = count ? `${found.more ? "the first " : ""}${count} objects, the surest first` : "nothing found";
  listHits(found.features, fly);
  await refresh();
}

export function listHits(features, fly) {
  $("hits").replaceChildren(...features.map((each) => {
    const item = document.createElement("li"), it = each.properties;
    item.append(button(`${it.label} ${it.score.toFixed(2)} ${it.time.slice(0, 10)}: ${it.caption}`, () => fly(each)));
    return item;
  }));
}

/** Moves to an object in its time slice; `sliceChanged` draws that. */
export async function flyTo(hit, sliceChanged) {
  const at = slices().findIndex((each) => each.start === hit.properties.slice);
  if (at >= 0 && at !== state.slice) { state.slice = at; sliceChanged(); }
  state.hit = hit.properties.object_id;
  const extent = geojson.readFeature(hit).getGeometry().getExtent();
  await new Promise((done) => view.fit(extent, { maxZoom: 17, padding: [80, 80, 80, 80], duration: 400, callback: done }));
  await refresh();
}
