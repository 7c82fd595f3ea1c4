// Bundles the front end into ../static: `npm ci && npm run build`. What it was built from is written to
// built.json, which a test compares with the sources; .ci/frontend builds it again and compares all bytes.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const licence = readFileSync(new URL("node_modules/uplot/LICENSE", import.meta.url), "utf8").trim();
const banner = `/*!
 * toolshed's dashboard, built from toolshed/live/frontend. Do not edit: change the sources and build again.
 *
 * It holds uPlot 1.6.32, https://github.com/leeoniya/uPlot:
 *
${licence.split("\n").map((line) => ` * ${line}`.trimEnd()).join("\n")}
 */`;

const outdir = process.env.TOOLSHED_STATIC ?? "../static";
await build({
  entryPoints: { dashboard: "src/index.js" },
  outdir,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2021",
  charset: "utf8",
  legalComments: "none",
  banner: { js: banner, css: banner },
  logLevel: "info",
});

const digest = (path) => createHash("sha256").update(readFileSync(path)).digest("hex");
const digests = (folder, names) => Object.fromEntries(names.sort().map((name) => [name, digest(`${folder}/${name}`)]));
const sources = ["build.mjs", "package.json", "package-lock.json", ...readdirSync("src").map((name) => `src/${name}`)];
const built = { sources: digests(".", sources), static: digests(outdir, ["dashboard.css", "dashboard.js"]) };
writeFileSync("built.json", `${JSON.stringify(built, null, 2)}\n`);
