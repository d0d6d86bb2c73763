// Bundles the page into workflows/view/page, and lists the licences of what the bundle holds.
import { build } from "esbuild";
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";

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
const lines = [...names].sort().map((name) => {
  const about = JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8"));
  const licence = about.license ?? about.licenses?.map((each) => each.type).join(", ");
  return `${name} ${about.version}: ${licence}`;
});
writeFileSync(`${page}/licences.txt`, `What app.js and app.css hold of others:\n${lines.join("\n")}\n`);
