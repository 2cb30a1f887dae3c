"""The image engine against sharp and plain Pillow, and its files against each other.

Every contender runs in a process of its own, on the same two processors of however many there are, is warmed up, and
takes its turn at the same original before the next original comes, round after round; figures are medians. CPU time is
what to look at on a machine that others use.
Qualities are matched first: sharp's scales differ, so for each format the quality is sought at which its `detail` of
one photo scores as ours. sharp is installed from npm, beside the virtual environment.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine_photos
import numpy as np
from PIL import Image
from running import bar

from imgpipe_orchestration.imaging.encoding.encode import encode
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.geometry import WHOLE
from imgpipe_orchestration.imaging.measuring.preview import look
from imgpipe_orchestration.imaging.plan import output_size
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe, Size
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.subject.focus import FocusHints
from imgpipe_orchestration.imaging.workshop import Workshop

HERE = Path(__file__).parent
SHARP = "0.35.5"
KINDS = ("avif", "webp", "jpeg")
OURS = (
    "ours",
    "ours on two threads",
    "ours, adaptive",
    "ours, adaptive on two threads",
    "ours, as found",
    "ours, whole, adaptive",
    "ours, whole, as found",
)
"""`as found` is fixed quality at the very qualities that the adaptive way chose for `detail`: the same work without the
search. The plain fixed quality makes larger or smaller files, and so other work. `whole` is what an upload takes in the
pipeline, the search for its subject included, which sharp and Pillow do not do."""
NAIVE = ("naive", "naive, matched")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parts = {"speed": None, "files": sizes_of_files, "spread": spread, "nearness": nearness, "isolation": isolation}
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="all of them where none is named")
    arguments = parser.parse_args()
    parts["speed"] = lambda: speed(arguments.rounds)
    for name in arguments.parts or parts:
        parts[name]()


def speed(rounds: int) -> None:
    """CPU, wall and memory of every contender over the same originals."""
    if hasattr(os, "sched_setaffinity"):
        # Codecs begin as many threads as they see processors, and ours is measured on two threads.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, data in engine_photos.originals().items():
            files[name] = Path(folder) / name.replace(" ", "_")
            files[name].write_bytes(data)
        contenders = {way: Contender([sys.executable, str(HERE / "engine_contender.py")]) for way in (*OURS, *NAIVE)}
        home = sharp_home()
        if home:
            command = ["node", str(HERE / "engine_sharp.mjs"), str(home)]
            contenders |= {way: Contender(command) for way in ("usual", "tuned")}
        qualities = matched_qualities(contenders, files["6 MP JPEG"], Path(folder)) if home else dict(ours_quality())
        used: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
        for number in range(rounds + 1):
            for name, file in files.items():
                with Image.open(file) as image:
                    plan = plan_for(image.size, qualities)
                for way, contender in contenders.items():
                    answer = contender.ask(way, file, plan)
                    plan["found"] = answer.pop("found", None) or plan.get("found")
                    if number:  # the first round warms up
                        used[way][name].append(answer)
        for contender in contenders.values():
            contender.close()
    report(used)


def report(used: dict[str, dict[str, list[dict[str, float]]]]) -> None:
    median = {
        way: {name: {k: statistics.median(a[k] for a in answers) for k in answers[0]} for name, answers in rows.items()}
        for way, rows in used.items()
    }
    for way, rows in median.items():
        cells = "  ".join(f"{name}: {r['cpu']:.2f} s CPU, {r['wall']:.2f} s" for name, r in rows.items())
        print(f"{way:30} {cells}  peak {max(r['peak'] for r in rows.values()) / 1e6:.0f} MB")

    def ratio(one: str, other: str, what: str) -> float:
        pairs = [median[one][name][what] / median[other][name][what] for name in median[one]]
        return float(np.exp(np.mean(np.log(pairs))))

    if "usual" in median:
        bar("engine CPU over sharp as usual", ratio("ours", "usual", "cpu"), 0.75)
        bar("engine CPU over sharp tuned", ratio("ours", "tuned", "cpu"), 1.05)
        most = {way: max(r["peak"] for r in median[way].values()) for way in ("ours", "usual", "tuned")}
        bar("engine peak memory over sharp as usual", most["ours"] / most["usual"], 0.8)
        print(f"engine peak memory over sharp tuned {most['ours'] / most['tuned']:.2f}")
    else:
        print("sharp is not here (npm is missing or offline): its bars were not measured")
    bar("engine wall on two threads over naive Pillow", ratio("ours on two threads", "naive", "wall"), 0.15)
    bar("engine CPU over naive Pillow", ratio("ours", "naive", "cpu"), 0.2)
    print(f"engine CPU over naive Pillow at our encoder speeds {ratio('ours', 'naive, matched', 'cpu'):.2f}")
    bar("engine two-thread scaling", 1 / ratio("ours on two threads", "ours", "wall"), 1.8, at_least=True)
    scaling = 1 / ratio("ours, adaptive on two threads", "ours, adaptive", "wall")
    print(f"engine two-thread scaling with per-photo quality {scaling:.2f}")
    whole = ratio("ours, whole, adaptive", "ours, whole, as found", "cpu")
    bar("engine CPU of per-photo quality over fixed, whole renderings", whole, 1.35)
    given = ratio("ours, adaptive", "ours, as found", "cpu")
    print(f"engine CPU of per-photo quality over fixed, without the search for the subject {given:.2f}")
    print(f"engine CPU of per-photo quality over the recipe's fixed one {ratio('ours, adaptive', 'ours', 'cpu'):.2f}")


def sizes_of_files() -> None:
    """Bytes at a score of 75, photo by photo: at 1200 px, and at the photos' own size."""
    for label, pictures in (
        ("at 1200 px", [engine_photos.wide(name) for name in engine_photos.NAMES]),
        ("at their own size", [engine_photos.photo(name) for name in engine_photos.NAMES]),
    ):
        at = {kind: [bytes_at(picture, kind, 75) for picture in pictures] for kind in KINDS}
        ratios = {}
        for one, other, most in (("avif", "webp", 0.80), ("webp", "jpeg", 0.82), ("avif", "jpeg", 0.65)):
            ratios[one, other] = float(np.exp(np.mean(np.log(np.array(at[one]) / np.array(at[other])))))
            if label == "at 1200 px":
                bar(f"{one} bytes over {other} {label}", ratios[one, other], most)
            else:
                print(f"{one} bytes over {other} {label}: {ratios[one, other]:.3f}")


def bytes_at(picture: Image.Image, kind: str, target: float) -> float:
    """Bytes at exactly the target, between the two nearest qualities."""
    reference = Reference(picture)
    low, high = 15, 97
    seen: dict[int, tuple[float, int]] = {}

    def at(quality: int) -> tuple[float, int]:
        if quality not in seen:
            data = encode(picture, kind, quality, MEDIA)  # type: ignore[arg-type]
            seen[quality] = (score(reference, data), len(data))
        return seen[quality]

    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle)[0] < target else (low, middle)
    (below, few), (above, many) = at(low), at(high)
    share = min(max((target - below) / max(above - below, 1e-6), 0), 1)
    return float(np.exp(np.log(few) * (1 - share) + np.log(many) * share))


def spread() -> None:
    """How far photos stray from the target score, with one quality for all and with each its own."""
    detail = (next(size for size in MEDIA.sizes if size.name == "small"), Size("detail", 1200, 1200, "within"))
    for adaptive in (False, True):
        recipe = Recipe(sizes=detail, adaptive=adaptive)
        scores = defaultdict(list)
        for name in engine_photos.NAMES:
            picture = engine_photos.photo(name)
            rendition = render(engine_photos.encoded(picture, "PNG"), recipe, FocusHints(manual=WHOLE))
            for variant in rendition.variants:
                if variant.size == "detail" and (variant.width, variant.height) == picture.size:
                    scores[variant.format].append(score(Reference(picture), variant.data))
        for kind, values in scores.items():
            figure = float(np.std(values))
            label = f"{len(values)} photos, {'per-photo' if adaptive else 'fixed'} quality, {kind}"
            span = f"mean {np.mean(values):.1f}, {min(values):.1f} to {max(values):.1f}"
            print(f"score of {label}: {span}, sd {figure:.2f}")
        if adaptive:
            bar("score spread with per-photo quality", max(float(np.std(v)) for v in scores.values()), 1.5)


def nearness() -> None:
    """How far every file of every size is from its target, by the score of all its pixels."""
    originals = {name: engine_photos.encoded(engine_photos.photo(name), "PNG") for name in engine_photos.NAMES}
    misses = []
    for name, data in (originals | engine_photos.originals()).items():
        exact = render(data, replace(MEDIA, formats=("png",))).variants
        references = {one.size: Reference(Image.open(io.BytesIO(one.data)).convert("RGB")) for one in exact}
        for one in render(data, MEDIA).variants:
            miss = score(references[one.size], one.data) - 75
            misses.append((abs(miss), f"{miss:+.1f} of {name}, {one.size}.{one.format} at {one.quality}"))
    misses.sort(reverse=True)
    print(f"the farthest of {len(misses)} files: {'; '.join(label for _, label in misses[:3])}")
    bar("points of score that a file is off its target, the most of all", misses[0][0], 2.0)


def isolation() -> None:
    """What a worker process costs over a plain call."""
    data = engine_photos.originals()["2 MP JPEG"]
    recipe = replace(MEDIA, adaptive=False)
    took: dict[str, list[float]] = {"here": [], "worker": []}
    with Workshop(1) as shop:
        shop.call(look, data)
        for _ in range(5):
            start = time.perf_counter()
            render(data, recipe)
            middle = time.perf_counter()
            shop.call(render, data, recipe)
            took["here"].append(middle - start)
            took["worker"].append(time.perf_counter() - middle)
    price = statistics.median(took["worker"]) / statistics.median(took["here"])
    print(f"engine in a worker process over a plain call {price:.3f}")


class Contender:
    """A process that takes jobs."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, way: str, file: Path, plan: dict[str, Any], keep: Path | None = None) -> dict[str, Any]:
        job = {"way": way, "file": str(file), "plan": plan, "keep": str(keep) if keep else None}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate()


def ours_quality() -> dict[str, int]:
    return {kind: MEDIA.quality_of(kind) for kind in KINDS}  # type: ignore[arg-type]


def plan_for(size: tuple[int, int], qualities: dict[str, int]) -> dict[str, Any]:
    """The sizes as every contender gets them: never larger than the original."""
    sizes = []
    for one in MEDIA.sizes:
        width, height = output_size(*size, one)
        sizes.append({"name": one.name, "fit": one.fit, "width": width, "height": height, "pixels": width * height})
    return {"sizes": sizes, "quality": ours_quality(), "sharp_quality": qualities}


def matched_qualities(contenders: dict[str, Contender], file: Path, folder: Path) -> dict[str, int]:
    """sharp's quality in each format at which `detail` scores as ours does."""
    with Image.open(file) as image:
        picture, size = image.convert("RGB"), image.size
    mine, theirs = folder / "mine", folder / "theirs"
    mine.mkdir()
    theirs.mkdir()
    contenders["ours"].ask("ours", file, plan_for(size, ours_quality()), keep=mine)
    reference = Reference(picture.resize(output_size(*size, MEDIA.sizes[3]), Image.Resampling.LANCZOS))
    qualities = ours_quality()
    scores = {}
    for _ in range(5):
        contenders["usual"].ask("usual", file, plan_for(size, qualities), keep=theirs)
        misses = {}
        for kind in KINDS:
            name = f"detail.{kind}"
            scores[kind] = [score(reference, (where / name).read_bytes()) for where in (mine, theirs)]
            misses[kind] = scores[kind][0] - scores[kind][1]
        if all(abs(miss) <= 0.5 for miss in misses.values()):
            break
        qualities = {kind: round(qualities[kind] + misses[kind] / 0.7) for kind in KINDS}
    for kind, (our, their) in scores.items():
        print(f"{kind}: our detail scores {our:.2f}, sharp's {their:.2f} at quality {qualities[kind]}")
    return qualities


def score(reference: Reference, data: bytes) -> float:
    with Image.open(io.BytesIO(data)) as image:
        return reference.score(image.convert("RGB"))


def sharp_home() -> Path | None:
    """Where sharp is installed; None without npm or a registry."""
    home = Path(sys.prefix) / "sharp"
    if (home / "node_modules" / "sharp").is_dir():
        return home
    if not shutil.which("npm") or not shutil.which("node"):
        return None
    home.mkdir(exist_ok=True)
    (home / "package.json").write_text('{"private": true}')
    run = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", f"sharp@{SHARP}"], cwd=home, check=False
    )
    return home if run.returncode == 0 else None


if __name__ == "__main__":
    main()
