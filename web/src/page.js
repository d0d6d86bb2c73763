/** The page's elements and what it says. */

export const $ = (id) => document.getElementById(id);

export function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

/** Returns a function that says what goes wrong in it; what was called off is no fault. */
export const told = (work) => (...given) =>
  work(...given).catch((error) => { if (error.name !== "AbortError") say(error.message); });

export const onChange = (ids, work) => {
  for (const id of ids) $(id).addEventListener("change", work);
};

/** Once, and given back: a page may have few contexts. */
export const hasWebGL = (() => {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
})();

/** Adds a name and a value to a list; words of a model or a file are never HTML. */
export function fact(list, name, value) {
  if (value === "" || value == null) return;
  const term = document.createElement("dt"), said = document.createElement("dd");
  term.textContent = name;
  said.textContent = value;
  list.append(term, said);
}

/** Opens the box of details, and has it filled. */
export function open(title, fill) {
  const box = $("detail"), heading = document.createElement("h2"), list = document.createElement("dl");
  heading.textContent = title;
  box.replaceChildren(heading, list);
  fill(list, box);
  box.hidden = false;
}

export function button(text, work) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.addEventListener("click", told(async () => work()));
  return made;
}
