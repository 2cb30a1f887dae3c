"""What can be said of a picture by looking at its pixels, and one look at an original: its figures, and a small JPEG of
it for the models that analyse it."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageStat import Stat

from imgpipe_orchestration.imaging.colour import drop_opaque_alpha, flattened, srgb_light, to_eight_bits, to_srgb
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.reading.metadata import exif_block, ownership, upright
from imgpipe_orchestration.imaging.reading.opening import decode, open_original, pixel_sha256
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
_MERGE_BELOW = 0.06
"""Oklab distance below which most people call two colours by the same name."""

_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]], dtype=np.float32,
)  # fmt: skip
_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]], dtype=np.float32,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an original gives."""

    preview: bytes
    """JPEG, sRGB, upright; transparency is laid over a plain ground; of its metadata only author and copyright."""
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
    original = open_original(data)
    full = upright(to_eight_bits(decode(original)), original.orientation)
    size = fit_within(full.width, full.height, side, side)
    # `reducing_gap` lets Pillow average whole pixels first: a third of the time, and not visible at SEEN_AT.
    gap = 1.5 if side == SEEN_AT else 3.0
    small = full.resize(size, Image.Resampling.LANCZOS, reducing_gap=gap) if size != full.size else full
    small, note = to_srgb(small)
    small = drop_opaque_alpha(small)
    notes = [note] if note else []
    if original.sniffed.animated:
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
            "has_alpha": measured.mode == "RGBA",
            "width": width,
            "height": height,
        },
        "dominant_colors": dominant_colours(measured),
        "placeholder": placeholder(measured),
        "phash": perceptual_hash(seen),
        # Of all pixels, so that it is equal for identical pixels in different files.
        "pixel_sha256": pixel_sha256(drop_opaque_alpha(full)),
    }
    return Look(out.getvalue(), preview.size, values, original.sniffed.format, notes)


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
    Found by k-means in Oklab, where distances correspond to perceived ones.

    Transparent pixels do not count. A few milliseconds; the same image always gives the same colours.
    """
    small = image.copy()
    small.thumbnail((_PALETTE_SIDE, _PALETTE_SIDE), Image.Resampling.BOX)
    rgba = np.asarray(small.convert("RGBA")).reshape(-1, 4)
    rgb = rgba[rgba[:, 3] >= 128, :3]
    if not len(rgb):
        return []
    points = to_oklab(rgb)
    count = min(_COLOURS, len(np.unique(rgb, axis=0)))
    if count == 1:  # OpenCV would take a single point of three channels for three points
        return [{"hex": _hex(rgb, points, points[0]), "share": 1.0}]
    cv2.setRNGSeed(1)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 20, 1e-4)
    start = np.zeros((len(points), 1), dtype=np.int32)
    _, labels, centres = cv2.kmeans(points, count, start, criteria, 1, cv2.KMEANS_PP_CENTERS)
    shares = np.bincount(labels.ravel(), minlength=count) / len(points)
    found = []
    for index, share, centre in _merged(shares, np.asarray(centres, dtype=np.float32)):
        own = labels.ravel() == index
        found.append({"hex": _hex(rgb[own], points[own], centre), "share": round(share, 4)})
    return found


def to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """sRGB pixels (n, 3) to Oklab (n, 3); Ottosson 2020, https://bottosson.github.io/posts/oklab."""
    value = rgb.astype(np.float32) / 255
    linear = srgb_light(value).astype(np.float32)
    lab: NDArray[np.float32] = np.cbrt(linear @ _LMS.T) @ _LAB.T
    return np.ascontiguousarray(lab, dtype=np.float32)


def _merged(shares: NDArray[np.float64], centres: NDArray[np.float32]) -> list[tuple[int, float, NDArray[np.float32]]]:
    """Index, share and centre of the clusters, largest first; one close to a larger one is merged into that."""
    kept: list[tuple[int, float, NDArray[np.float32]]] = []
    for index in np.argsort(-shares, kind="stable"):
        near = next((i for i, k in enumerate(kept) if np.linalg.norm(k[2] - centres[index]) < _MERGE_BELOW), None)
        if near is None:
            kept.append((int(index), float(shares[index]), centres[index]))
        else:
            kept[near] = (kept[near][0], kept[near][1] + float(shares[index]), kept[near][2])
    return sorted(kept, key=lambda k: -k[1])


def _hex(rgb: NDArray[np.uint8], points: NDArray[np.float32], centre: NDArray[np.float32]) -> str:
    """The colour of the pixel nearest to the centre, so that it occurs in the picture."""
    nearest = rgb[int(np.argmin(((points - centre) ** 2).sum(axis=1)))]
    return "#" + bytes(int(v) for v in nearest).hex()
