// Bundles the page into workflows/view/page, and lists the licences of what the bundle holds.
import { build } from "esbuild";
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from "node:fs";

const page = "../workflows/view/page";
const made = await build({
  entryPoints: ["src/main.js", "src/style.css"],
  entryNames: "app",
  outdir: page,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "none",
  metafile: true,
});
copyFileSync("src/index.html", `${page}/index.html`);

const names = new Set();
for (const input of Object.keys(made.metafile.inputs)) {
  const found = input.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//);
  if (found) names.add(found[1]);
}
const texts = [...names].sort().map((name) => {
  const folder = `node_modules/${name}`;
  const about = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? readFileSync(`${folder}/${file}`, "utf8").trim() : "";
  if (!text) throw new Error(`${name} has no text of its licence`);
  return `${name} ${about.version} (${about.license})\n\n${text}\n`;
});
const rule = `\n${"-".repeat(80)}\n`;
writeFileSync(`${page}/licences.txt`, ["What app.js and app.css hold of others.\n", ...texts].join(rule));
