// Bundles the front end into ../static: `npm ci && npm run build`. A test compares the outcome, byte by byte.
import { build } from "esbuild";
import { readFileSync } from "node:fs";

const licence = readFileSync(new URL("node_modules/uplot/LICENSE", import.meta.url), "utf8").trim();
const banner = `/*!
 * toolshed's dashboard, built from toolshed/live/frontend. Do not edit: change the sources and build again.
 *
 * It holds uPlot 1.6.32, https://github.com/leeoniya/uPlot:
 *
${licence.split("\n").map((line) => ` * ${line}`.trimEnd()).join("\n")}
 */`;

await build({
  entryPoints: { dashboard: "src/index.js" },
  outdir: process.env.TOOLSHED_STATIC ?? "../static",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2021",
  charset: "utf8",
  legalComments: "none",
  banner: { js: banner, css: banner },
  logLevel: "info",
});
