"""The image engine against sharp, and how evenly its per-photo quality scores.

Every contender runs in a process of its own, is warmed up, and takes its turn at the same original before the next
original comes, round after round; figures are medians of CPU time, which counts also on a machine that others use.
Qualities are matched first: sharp's scales differ, so for each format the quality is sought at which its `detail` of
one photo scores as ours. sharp is installed from npm, beside the virtual environment.
"""

import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from running import bar, options

from imgpipe_orchestration.devstack.photos import PHOTOS, open_photo
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.geometry import WHOLE
from imgpipe_orchestration.imaging.plan import output_size
from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe, Size
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.subject.focus import FocusHints
from imgpipe_orchestration_tests.photos import large

SHARP = "0.35.5"
KINDS: tuple[Format, ...] = ("avif", "webp", "jpeg")
Qualities = dict[Format, int]
DETAIL = Size("detail", 1200, 1200, "within")


def main() -> None:
    arguments = options(__doc__, rounds=5, photos=len(PHOTOS))
    speed(arguments.rounds)
    spread(list(PHOTOS)[: arguments.photos])


def speed(rounds: int) -> None:
    """CPU and memory of every contender over the same originals."""
    home = sharp_home()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        originals = {f"photo {seed}": Path(folder, f"{seed}.jpg") for seed in range(3)}
        for seed, file in enumerate(originals.values()):
            file.write_bytes(large(seed))
        pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        ways: dict[str, Way] = {"ours": lambda given: pool.submit(ours, given).result()}
        qualities = {kind: MEDIA.quality_of(kind) for kind in KINDS}
        if home:
            ways["sharp"] = Sharp(stack, home).ask
            qualities = matched(ways, originals["photo 0"], Path(folder))
        used: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        peaks: dict[str, float] = {}
        for number in range(rounds + 1):
            for name, file in originals.items():
                given: dict[str, Any] = {"file": str(file), "sizes": sizes_of(file), "quality": qualities}
                for way, ask in ways.items():
                    answer = ask(given)
                    peaks[way] = answer["peak"]
                    if number:  # the first round warms up
                        used[way][name].append(answer["cpu"])
    median = {way: {name: statistics.median(values) for name, values in each.items()} for way, each in used.items()}
    for way, each in median.items():
        print(f"{way:9}", ", ".join(f"{name} {cpu:.2f} s" for name, cpu in each.items()), f"{peaks[way] / 1e6:.0f} MB")
    if home:
        ratios = [median["ours"][name] / median["sharp"][name] for name in originals]
        bar("engine CPU over sharp", statistics.geometric_mean(ratios), 0.75)
        bar("engine peak memory over sharp", peaks["ours"] / peaks["sharp"], 0.8)
    else:
        print("sharp is not here (npm is missing or offline): its bars were not measured")


def spread(names: list[str]) -> None:
    """How far photos stray from the target score when each has a quality of its own."""
    scores = defaultdict(list)
    small = next(size for size in MEDIA.sizes if size.name == "small")
    for name in names:
        picture, file = open_photo(name), io.BytesIO()
        picture.save(file, "PNG")
        rendition = render(file.getvalue(), Recipe(sizes=(small, DETAIL), adaptive=True), FocusHints(manual=WHOLE))
        for variant in rendition.variants:
            if variant.size == "detail" and (variant.width, variant.height) == picture.size:
                scores[variant.format].append(score(Reference(picture), variant.data))
    for kind, values in scores.items():
        print(f"score of {len(values)} photos, {kind}: {min(values):.1f} to {max(values):.1f}")
    bar("score spread with per-photo quality", max(float(np.std(values)) for values in scores.values()), 1.5)


# --- contenders ------------------------------------------------------------------------------------------------------

Way = Callable[[dict[str, Any]], dict[str, Any]]


def ours(given: dict[str, Any]) -> dict[str, Any]:
    """The engine at fixed quality. The focus is given, for sharp does not look for one."""
    data = Path(given["file"]).read_bytes()
    before = time.process_time()
    variants = render(data, replace(MEDIA, adaptive=False), FocusHints(manual=WHOLE)).variants
    answer: dict[str, Any] = {"cpu": time.process_time() - before, "peak": peak()}
    keep(given, {f"{one.size}.{one.format}": one.data for one in variants})
    return answer


class Sharp:
    """engine_sharp.mjs: a job a line, and its answer a line."""

    def __init__(self, stack: ExitStack, home: Path) -> None:
        command = ["node", str(Path(__file__).with_name("engine_sharp.mjs")), str(home)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(self._process.communicate)

    def ask(self, given: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def sharp_home() -> Path | None:
    """Where sharp is installed; None without npm or a registry."""
    home = Path(sys.prefix) / "sharp"
    if (home / "node_modules" / "sharp").is_dir():
        return home
    if not shutil.which("npm") or not shutil.which("node"):
        return None
    home.mkdir(exist_ok=True)
    (home / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", f"sharp@{SHARP}"]
    return home if subprocess.run(command, cwd=home, check=False).returncode == 0 else None


def matched(ways: dict[str, Way], file: Path, folder: Path) -> Qualities:
    """sharp's quality in each format at which `detail` scores as ours does."""
    mine, theirs = folder / "mine", folder / "theirs"
    mine.mkdir()
    theirs.mkdir()
    given: dict[str, Any] = {"file": str(file), "sizes": sizes_of(file)}
    ways["ours"](given | {"keep": str(mine)})
    with Image.open(file) as image:
        picture = image.convert("RGB")
    reference = Reference(picture.resize(output_size(*picture.size, DETAIL), Image.Resampling.LANCZOS))
    qualities = {kind: MEDIA.quality_of(kind) for kind in KINDS}
    for _ in range(5):
        ways["sharp"](given | {"keep": str(theirs), "quality": qualities})
        detail = {kind: [(folder / f"detail.{kind}").read_bytes() for folder in (mine, theirs)] for kind in KINDS}
        scores = {kind: [score(reference, data) for data in pair] for kind, pair in detail.items()}
        qualities = {kind: round(qualities[kind] + (us - them) / 0.7) for kind, (us, them) in scores.items()}
        if all(abs(us - them) <= 0.5 for us, them in scores.values()):
            break
    for kind, (us, them) in scores.items():
        print(f"{kind}: our detail scores {us:.2f}, sharp's {them:.2f} at quality {qualities[kind]}")
    return qualities


# --- what they need --------------------------------------------------------------------------------------------------


def sizes_of(file: Path) -> list[dict[str, Any]]:
    """The sizes as every contender gets them: never larger than the original."""
    with Image.open(file) as image:
        sizes = [(one, output_size(*image.size, one)) for one in MEDIA.sizes]
    return [{"name": one.name, "fit": one.fit, "width": wide, "height": high} for one, (wide, high) in sizes]


def keep(given: dict[str, Any], made: dict[str, bytes]) -> None:
    if "keep" in given:
        for name, data in made.items():
            Path(given["keep"], name).write_bytes(data)


def score(reference: Reference, data: bytes) -> float:
    with Image.open(io.BytesIO(data)) as image:
        return reference.score(image.convert("RGB"))


def peak() -> int:
    """Bytes of memory at the most so far."""
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) * 1024 for row in rows if row.startswith("VmHWM"))


if __name__ == "__main__":
    main()
