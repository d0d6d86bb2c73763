/** What is known of an object that is clicked, and of a place. */

import { transformExtent } from "ol/proj.js";

import { address, ask } from "./api.js";
import { $, button, fact, open } from "./page.js";
import { MAP, numberOf, sliceOf, view } from "./sides.js";
import { state } from "./state.js";

/** Opens the details of the object under a click; `follow` shows its track. */
export function detail(side, event, follow) {
  const feature = side.map.forEachFeatureAtPixel(event.pixel, (each) => each, {
    hitTolerance: 4, layerFilter: (layer) => layer === side.vector,
  });
  $("detail").hidden = !feature;
  if (!feature) return;
  if (feature.get("objects")) {
    view.animate({ center: feature.getGeometry().getCoordinates(), zoom: view.getZoom() + 2, duration: 300 });
    $("detail").hidden = true;
    return;
  }
  const bounds = transformExtent(feature.getGeometry().getExtent(), MAP, "EPSG:4326");
  describe({ bounds, ...feature.getProperties() }, numberOf(side), sliceOf(side), follow);
}

/** Opens the details of an object of a time slice. */
export function describe(it, number, slice, follow) {
  open(it.label, (list, box) => {
    const image = document.createElement("img");
    image.alt = "the scene there";
    image.src = address(`api/${number}/crop.png`, { slice: slice.name, bbox: it.bounds.join(",") });
    image.addEventListener("error", () => image.replaceWith("the imagery cannot be read now"));
    box.insertBefore(image, list);
    fact(list, "caption", it.caption);
    fact(list, "score", Number(it.score).toFixed(3));
    fact(list, "change", it.change);
    if (it.length_m) fact(list, "size", `${it.length_m.toFixed(0)} x ${it.width_m.toFixed(0)} m, ${it.area_m2.toFixed(0)} m²`);
    fact(list, "time", it.time);
    fact(list, "Item", it.item_id);
    fact(list, "prompt", it.prompt_ids && `${it.prompt_kind}: ${it.prompt_ids}`);
    fact(list, "model", it.model && `${it.model} ${it.model_digest}`);
    fact(list, "id", it.object_id);
    const [west, south, east, north] = it.bounds;
    box.append(button("why here", () => why(number, [(west + east) / 2, (south + north) / 2])));
    if (it.track_id && number === state.number) box.append(button("its track through time", () => follow(it.track_id)));
  });
}

/** Says of a place what it is in each time slice, and why. */
export async function why(number, [lon, lat]) {
  const found = await ask(`api/${number}/why`, { lon, lat });
  open(`${lat.toFixed(5)}, ${lon.toFixed(5)}`, (list) => {
    for (const each of found) {
      const said = [each.status, each.label && `${each.label} ${each.score}`, each.reason];
      fact(list, each.time.slice(0, 10), said.filter(Boolean).join("; "));
    }
  });
}
