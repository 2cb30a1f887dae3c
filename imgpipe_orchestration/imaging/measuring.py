"""What can be said of a picture by looking at its pixels, and one look at an original: its figures, and a small JPEG of
it for the models that analyse it."""

import base64
import io
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageStat import Stat

from imgpipe_orchestration.imaging.colour import drop_opaque_alpha, flattened, to_eight_bits, to_srgb
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.imaging.opencv import cv2, lab_of
from imgpipe_orchestration.imaging.reading.metadata import exif_block, ownership, upright
from imgpipe_orchestration.imaging.reading.opening import decode, pixel_sha256
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.resize import shrink_within

SEEN_AT = 768
"""Longer side, pixels, of the preview that a model analyses: Google asks for 640x480 or more, OpenAI's low detail works
at 512, and answers about style, subject or text do not get better beyond."""
_MEASURED_AT = 512
_QUALITY = 85
_PLACEHOLDER_SIDE = 24
"""Pixels of the longer side: 150 to 300 bytes."""
_TILES = 8
"""Tiles in a row and in a column, by which sharpness is measured."""
_PALETTE_SIDE = 96
_COLOURS = 6
_MERGE_BELOW = 10.0
"""Lab distance below which most people call two colours by the same name."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an original gives."""

    preview: bytes
    """JPEG, sRGB, upright; transparency is laid over a plain background; of its metadata only author and copyright."""
    preview_size: tuple[int, int]
    values: dict[str, Any]
    """Columns of an analysis: what was measured of the upright first frame."""
    format: str
    """Of the original."""
    notes: list[str]
    """Sentences for people: colour profile ignored, animated."""


def look(data: bytes, side: int = SEEN_AT) -> Look:
    """Measure an original and derive its preview from one decoding, in full: the pixel hash needs every pixel.

    Args:
        side: longer side of the preview, pixels.

    Raises:
        BadImage, TooLarge: as `render.render`.
    """
    original = sniff(data)
    full = upright(to_eight_bits(decode(original)), original.orientation)
    size = fit_within(full.width, full.height, side, side)
    # `reducing_gap` lets Pillow average whole pixels first: a third of the time, and not visible at SEEN_AT.
    gap = 1.5 if side == SEEN_AT else 3.0
    small = full.resize(size, Image.Resampling.LANCZOS, reducing_gap=gap) if size != full.size else full
    small, note = to_srgb(small)
    small = drop_opaque_alpha(small)
    notes = [note] if note else []
    if original.animated:
        notes.append("animated: the first frame was used")
    preview, out = flattened(small), io.BytesIO()
    preview.save(out, "JPEG", quality=_QUALITY, exif=exif_block(ownership(original.image)))
    measured = shrink_within(small, _MEASURED_AT, _MEASURED_AT)
    seen = flattened(measured)
    width, height = original.upright_size
    values = {
        "measured": {
            "sharpness": sharpness(seen),
            "exposure": exposure(seen),
            "width": width,
            "height": height,
        },
        "dominant_colors": dominant_colours(measured),
        "placeholder": placeholder(measured),
        "phash": perceptual_hash(seen),
        # Of all pixels, so that it is equal for identical pixels in different files.
        "pixel_sha256": pixel_sha256(drop_opaque_alpha(full)),
    }
    return Look(out.getvalue(), preview.size, values, original.format, notes)


def placeholder(image: Image.Image) -> str:
    """A tiny WebP of an RGB or RGBA picture as a data URL, which a browser enlarges into a blur."""
    small = image.copy()
    small.thumbnail((_PLACEHOLDER_SIDE, _PLACEHOLDER_SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=50, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def perceptual_hash(image: Image.Image) -> int:
    """64 bits that change little when a picture is resized, recompressed or slightly recoloured; a signed number, as
    PostgreSQL's bigint is.

    The signs of the 8x8 lowest frequencies of a 32x32 cosine transform against their median (Zauner 2010, pHash).
    Pictures that look alike differ in about 0 to 10 bits, unrelated ones in about 32.
    """
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float32)
    low = cv2.dct(grey)[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big", signed=True)


def sharpness(image: Image.Image) -> float:
    """0 (nothing sharp anywhere) to 1 (crisp detail), of the sharpest tenth of the picture.

    The standard deviation of the Laplacian is taken per tile of an 8x8 grid, and only the sharpest tiles count: a
    portrait with a soft background is a sharp picture. It is mapped by x / (x + 12); 12 grey levels are what a barely
    acceptable photograph of 512 px has.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    if min(grey.shape) < _TILES:
        return 0.0
    edges = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 0.7), cv2.CV_32F)
    rows, columns = (length // _TILES * _TILES for length in edges.shape)
    tiles = edges[:rows, :columns].reshape(_TILES, rows // _TILES, _TILES, columns // _TILES)
    best = np.sort(tiles.std(axis=(1, 3)).ravel())[-_TILES * _TILES // 10 :]
    deviation = float(best.mean())
    return round(deviation / (deviation + 12.0), 4)


def exposure(image: Image.Image) -> dict[str, float]:
    """Figures of the brightness (Rec. 601 luma), 0 to 1 each.

    `contrast` is the standard deviation over its largest possible value: 0 for one grey, 1 for half black and half
    white. The clipped shares are those of pixels at 0 to 2 and at 253 to 255.
    """
    brightness = Stat(image.convert("L"))
    (pixels,), histogram = brightness.count, brightness.h
    return {
        "mean": round(brightness.mean[0] / 255, 4),
        "contrast": round(brightness.stddev[0] / 127.5, 4),
        "clipped_shadows": round(sum(histogram[:3]) / pixels, 4),
        "clipped_highlights": round(sum(histogram[253:]) / pixels, 4),
    }


def dominant_colours(image: Image.Image) -> list[dict[str, Any]]:
    """Up to six colours, each with its `hex` (`#rrggbb`, sRGB) and its `share` of the visible pixels, largest first.
    Found by k-means in Lab, where distances correspond to perceived ones.

    Transparent pixels do not count. A few milliseconds; the same image always gives the same colours.
    """
    small = image.copy()
    small.thumbnail((_PALETTE_SIDE, _PALETTE_SIDE), Image.Resampling.BOX)
    rgba = np.asarray(small.convert("RGBA")).reshape(-1, 4)
    rgb = rgba[rgba[:, 3] >= 128, :3]
    count = min(_COLOURS, len(np.unique(rgb, axis=0)))
    labels = np.zeros(len(rgb), dtype=np.int32)
    if count > 1:  # OpenCV would take a single point of three channels for three points
        cv2.setRNGSeed(1)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 0.01)
        _, clusters, centres = cv2.kmeans(lab_of(rgb[None])[0], count, labels, criteria, 1, cv2.KMEANS_PP_CENTERS)
        labels = np.asarray(clusters, dtype=np.int32).ravel()
        by_size = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
        for larger, smaller in combinations(by_size, 2):
            if (labels == larger).any() and np.linalg.norm(centres[larger] - centres[smaller]) < _MERGE_BELOW:
                labels[labels == smaller] = larger
    found = []
    for label, pixels in Counter(labels.tolist()).most_common():
        middle = np.median(rgb[labels == label], axis=0).astype(np.uint8)
        found.append({"hex": f"#{bytes(middle).hex()}", "share": round(pixels / len(rgb), 4)})
    return found
