// sharp as a contender of the engine's bench: the same protocol as engine_contender.py.
//
// `usual` is a pipeline per output, as sharp's documentation shows it. `tuned` decodes once and chains raw pictures, as
// the engine does.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";

const sharp = createRequire(join(process.argv[2], "package.json"))("sharp");
sharp.cache(false);

const encode = (pipeline, kind, plan, pixels) => {
  const quality = plan.sharp_quality[kind];
  if (kind === "avif") return pipeline.avif({ quality, effort: pixels > 1_300_000 ? 0 : 1, chromaSubsampling: "4:2:0" });
  if (kind === "webp") return pipeline.webp({ quality, effort: pixels > 1_300_000 ? 2 : 3 });
  return pipeline.jpeg({ quality, progressive: true, optimiseCoding: true, chromaSubsampling: "4:2:0" });
};
const KINDS = ["avif", "webp", "jpeg"];
const resized = (pipeline, size) =>
  pipeline.resize(size.width, size.height, { fit: size.fit === "crop" ? "cover" : "inside", withoutEnlargement: true });

async function usual(data, plan) {
  const outputs = plan.sizes.flatMap((size) => KINDS.map((kind) => [size, kind]));
  const files = await Promise.all(
    outputs.map(([size, kind]) =>
      encode(resized(sharp(data).autoOrient(), size), kind, plan, size.pixels).toBuffer()),
  );
  return Object.fromEntries(outputs.map(([size, kind], i) => [`${size.name}.${kind}`, files[i]]));
}

async function tuned(data, plan) {
  const result = {};
  const waiting = [];
  const raw = (picture) => sharp(picture.data, { raw: picture.info });
  const finish = (picture, size) =>
    KINDS.map(async (kind) => {
      result[`${size.name}.${kind}`] = await encode(raw(picture), kind, plan, size.pixels).toBuffer();
    });
  const cut = async (pipeline, name) => {
    const size = plan.sizes.find((one) => one.name === name);
    const picture = await resized(pipeline, size).raw().toBuffer({ resolveWithObject: true });
    waiting.push(...finish(picture, size));
    return picture;
  };
  const zoom = await cut(sharp(data).autoOrient().toColourspace("srgb").removeAlpha(), "zoom");
  const [detail] = await Promise.all([cut(raw(zoom), "detail"), cut(raw(zoom), "header")]);
  const [grid] = await Promise.all([cut(raw(detail), "grid"), cut(raw(detail), "small")]);
  await cut(raw(grid), "thumbnail");
  await Promise.all(waiting);
  return result;
}

const peak = () => {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
  } catch {
    return 0;
  }
};

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  const data = readFileSync(job.file);
  const before = process.cpuUsage();
  const start = process.hrtime.bigint();
  const files = await (job.way === "usual" ? usual : tuned)(data, job.plan);
  const used = process.cpuUsage(before);
  const wall = Number(process.hrtime.bigint() - start) / 1e9;
  if (job.keep) for (const [name, file] of Object.entries(files)) writeFileSync(join(job.keep, name), file);
  console.log(JSON.stringify({ cpu: (used.user + used.system) / 1e6, wall, peak: peak() }));
}
