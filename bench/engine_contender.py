"""One contender of the engine's bench, in a process of its own: reads a job a line, answers what it cost.

A job is {"way", "file", "plan", "keep"}; the answer {"cpu", "wall", "peak"} in seconds and bytes.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> None:
    ways: dict[str, Callable[[bytes, dict[str, Any]], dict[str, Any]]] = {
        "ours": lambda data, plan: ours(data, plan, threads=1),
        "ours on two threads": lambda data, plan: ours(data, plan, threads=2),
        "ours, adaptive": lambda data, plan: ours(data, plan, threads=1, adaptive=True),
        "ours, adaptive on two threads": lambda data, plan: ours(data, plan, threads=2, adaptive=True),
        "ours, as found": lambda data, plan: ours(data, as_found(plan), threads=1),
        "ours, whole, adaptive": lambda data, plan: ours(data, plan, threads=1, adaptive=True, focus_given=False),
        "ours, whole, as found": lambda data, plan: ours(data, as_found(plan), threads=1, focus_given=False),
        "naive": lambda data, plan: naive(data, plan, matched=False),
        "naive, matched": lambda data, plan: naive(data, plan, matched=True),
    }
    for line in sys.stdin:
        job = json.loads(line)
        data = Path(job["file"]).read_bytes()
        cpu, wall = seconds(), time.perf_counter()
        files = ways[job["way"]](data, job["plan"])
        answer = {"cpu": seconds() - cpu, "wall": time.perf_counter() - wall, "peak": peak()}
        answer["found"] = files.pop("found", None)
        if job.get("keep"):
            for name, file in files.items():
                (Path(job["keep"]) / name).write_bytes(file)
        print(json.dumps(answer), flush=True)


def as_found(plan: dict[str, Any]) -> dict[str, Any]:
    """The plan at the qualities that the adaptive way found."""
    return {**plan, "quality": plan["found"]}


def ours(
    data: bytes, plan: dict[str, Any], *, threads: int, adaptive: bool = False, focus_given: bool = True
) -> dict[str, Any]:
    """The engine. The focus is given where it is compared with others, because they do not look for one."""
    import dataclasses

    from imgpipe_orchestration.imaging.geometry import WHOLE
    from imgpipe_orchestration.imaging.recipe import MEDIA
    from imgpipe_orchestration.imaging.render import render
    from imgpipe_orchestration.imaging.subject.focus import FocusHints

    quality = tuple((kind, plan["quality"][kind]) for kind in ("avif", "webp", "jpeg"))
    recipe = dataclasses.replace(MEDIA, adaptive=adaptive, fixed_quality=quality)
    rendition = render(data, recipe, FocusHints(manual=WHOLE) if focus_given else None, threads=threads)
    files: dict[str, Any] = {f"{v.size}.{v.format}": v.data for v in rendition.variants}
    if adaptive:
        found = {v.format: v.quality for v in rendition.variants if v.size == "detail"}
        files["found"] = {**plan["quality"], **found}
    return files


def naive(data: bytes, plan: dict[str, Any], *, matched: bool) -> dict[str, bytes]:
    """Pillow as its tutorial has it: every output opens the file, converts, resizes and saves."""
    from PIL import Image, ImageOps

    result = {}
    for size in plan["sizes"]:
        for kind in ("avif", "webp", "jpeg"):
            image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            if size["fit"] == "crop":
                image = ImageOps.fit(image, (size["width"], size["height"]), Image.Resampling.LANCZOS)
            else:
                image.thumbnail((size["width"], size["height"]), Image.Resampling.LANCZOS)
            options: dict[str, Any] = {"quality": plan["quality"][kind]}
            if matched:
                large = image.width * image.height > 1_300_000
                options |= {
                    "avif": {"speed": 9 if large else 8},
                    "webp": {"method": 2 if large else 3},
                    "jpeg": {"progressive": True, "optimize": True},
                }[kind]
            file = io.BytesIO()
            image.save(file, kind, **options)
            result[f"{size['name']}.{kind}"] = file.getvalue()
    return result


def seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak() -> int:
    """VmHWM in bytes; 0 where /proc is missing."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return next(int(row.split()[1]) * 1024 for row in status.read_text().splitlines() if row.startswith("VmHWM"))


if __name__ == "__main__":
    main()
