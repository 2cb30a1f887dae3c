// sharp as a contender of the engine's bench: a job a line, what it cost a line.
// A pipeline per output, as sharp's documentation shows it.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { join } from "node:path";

const sharp = createRequire(join(process.argv[2], "package.json"))("sharp");
sharp.cache(false);

const encode = (pipeline, kind, plan, pixels) => {
  const quality = plan.quality[kind];
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
      encode(resized(sharp(data).autoOrient(), size), kind, plan, size.width * size.height).toBuffer()),
  );
  return Object.fromEntries(outputs.map(([size, kind], i) => [`${size.name}.${kind}`, files[i]]));
}

const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  const data = readFileSync(job.file);
  const before = process.cpuUsage();
  const files = await usual(data, job);
  const used = process.cpuUsage(before);
  if (job.keep) for (const [name, file] of Object.entries(files)) writeFileSync(join(job.keep, name), file);
  console.log(JSON.stringify({ cpu: (used.user + used.system) / 1e6, peak: peak() }));
}
