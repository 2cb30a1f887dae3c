"""Removing the background of a logo: fit a colour model to the border, flood fill from it, unmix the edge.

It works where the background is one colour or a smooth gradient, as logos usually have, and refuses anything else: a
wrong cut-out is worse than none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.imaging.opencv import cv2, lab_of

Field = NDArray[np.float32]
"""Rows x columns (x channels), float32."""
Mask = NDArray[np.bool_]
Index = NDArray[np.int64]
Window = tuple[slice, slice]

_BORDER = 0.02
"""Width of the border that the model is fitted to, as a share of the shorter side."""
_UNIFORM = 4.0
"""Lab distance within which a border pixel belongs to the fitted background (2.3 is just noticeable)."""
_MOSTLY = 0.9
"""Share of the border that must belong to it; the rest may be a logo that touches the edge."""
_CLEAR = 12.0
"""Smallest difference, levels of 255, between logo and background at which a mixture of both can be unmixed."""
_EDGE, _JPEG_EDGE = 2, 4
"""Pixels on either side of the cut where antialiasing mixes logo and background; and where JPEG does so as well."""
_SMALLEST_HOLE = 1e-4
"""Share of the picture below which an enclosed patch of background colour counts as part of the logo."""
_STRONG = 0.25
"""Share of the logo's typical distance to the background below which a pixel is faint."""
_CLEAN = 0.5
"""Lab distance of most pixels around a logo up to which the picture has no noise, so that specks belong to the logo."""
_LARGEST_SPECK = 1e-3
"""Share of the picture below which a faint patch is noise."""
_JPEG_REACHES, _BLEEDS = 16, 0.3
"""Pixels around a logo into which JPEG's blocks carry its colour, and how strong that is at most, as a share of the
logo's contrast (measured at qualities 50 to 90; shadows are twice as strong)."""
_SHARP = 0.9
"""Share of the logo's outline that must be a sharp edge."""
_SAME = 1.0
"""Lab distance beyond the background's noise within which a hole shows the background, and not a similar paint."""
_FAINT = 0.02
"""Opacity below which a pixel's own colour cannot be told from noise: it becomes fully transparent."""


class NotUniform(BadInput):
    """The background is not one colour or gradient, so it is not removed; the message says what was found."""


@dataclass(frozen=True)
class CutOut:
    """A logo on transparency."""

    image: Image.Image
    """RGBA, of the size given."""
    removed: float
    """Share of the picture that became fully transparent."""
    holes: int
    """Enclosed patches of background that were opened as well (the inside of an O)."""


def remove_background(image: Image.Image, *, is_jpeg: bool = False) -> CutOut:
    """Make the background of a logo transparent.

    Args:
        image: RGB in sRGB, upright.
        is_jpeg: the original was a JPEG, so faint patches may be noise even where the surroundings look clean, as in
            a JPEG without chroma subsampling.

    Raises:
        NotUniform: the border is not one colour or a smooth gradient, or nothing but background was found.
    """
    rgb = np.asarray(image.convert("RGB"))
    lab = lab_of(rgb)
    fitted = _fit_border(lab)
    lab -= fitted
    lab *= lab
    distance = np.asarray(np.sqrt(lab.sum(axis=2)), dtype=np.float32)
    del lab
    along_border = distance[_border(*distance.shape)]
    fits = float((along_border < _UNIFORM).mean())
    if fits < _MOSTLY:
        raise NotUniform(f"the background is not uniform: only {fits:.0%} of the border is one colour or gradient")
    noise = float(np.median(along_border))  # of a JPEG or a sensor
    background = _connected_to_border(distance < max(_UNIFORM, 3 * noise))
    is_clean = not is_jpeg and _noise_near(~background, distance, 97) <= _CLEAN
    noise = max(noise, _noise_near(~background, distance, 50))
    enclosed = (distance < max(_UNIFORM, 3 * noise)) & ~background
    holes, count = _holes(enclosed, distance, noise)
    background |= holes
    if not is_clean:
        background |= _stray(~background, distance)
    removed = float(background.mean())
    if removed > 0.995:
        raise NotUniform("the image is nothing but background")
    if removed < 0.02:
        raise NotUniform("no background was found around the logo")
    _check_edge(~background, distance)
    colours, alpha = _unmixed(rgb, fitted, background, _EDGE if is_clean else _JPEG_EDGE)
    rgba = np.dstack([colours, np.round(alpha * 255).astype(np.uint8)])
    return CutOut(Image.fromarray(rgba), removed, count)


def _fit_border(lab: Field) -> Field:
    """The background's Lab colour at every pixel: each channel as a + bx + cy + dxy + ex² + fy², fitted to the border.

    The squares are for gradients that are linear in RGB, and for vignettes. Outliers are dropped between three rounds
    of fitting, so that a logo touching the edge does not count.
    """
    rows, columns = lab.shape[:2]
    x = np.linspace(0, 1, columns, dtype=np.float32)
    y = np.linspace(0, 1, rows, dtype=np.float32)
    down, right = np.nonzero(_border(rows, columns))
    across, along = x[right], y[down]
    terms = np.stack([np.ones_like(across), across, along, across * along, across * across, along * along], axis=1)
    values = lab[down, right]
    kept = np.linalg.norm(values - np.median(values, axis=0), axis=1) < 30
    for limit in (10.0, 5.0, 3.0):
        if kept.sum() < 16:
            kept = np.ones(len(values), dtype=np.bool_)
        factors, *_ = np.linalg.lstsq(terms[kept], values[kept], rcond=None)
        kept = np.linalg.norm(terms @ factors - values, axis=1) < limit
    fitted = np.empty_like(lab)
    for channel, (a, b, c, d, e, f) in enumerate(factors.T):
        fitted[..., channel] = (a + c * y + f * y * y)[:, None] + (b + d * y)[:, None] * x + e * x * x
    return fitted


def _border(rows: int, columns: int) -> Mask:
    width = max(1, round(min(rows, columns) * _BORDER))
    edge = np.zeros((rows, columns), dtype=np.bool_)
    edge[:width] = edge[-width:] = True
    edge[:, :width] = edge[:, -width:] = True
    return edge


def _noise_near(logo: Mask, distance: Field, percentile: float) -> float:
    """A percentile of the noise around the logo but off its edge, where JPEG leaves more of it than at the border."""
    mask = logo.astype(np.uint8)
    around = _grown(mask, _JPEG_REACHES // 2) & ~_grown(mask, _EDGE)
    return float(np.percentile(distance[around], percentile)) if around.any() else 0.0


def _check_edge(logo: Mask, distance: Field) -> None:
    """Refuse a logo that fades into the background: a cut through a shadow, a glow or a misfitted gradient is visible.

    Within three pixels of a sharp edge, however soft its antialiasing, there is the logo's own colour.
    """
    edge = logo & _grown((~logo).astype(np.uint8), 1)
    reached = np.asarray(cv2.dilate(distance, np.ones((7, 7), np.uint8)))[edge]
    if reached.size and float((reached >= _contrast(logo, distance)).mean()) < _SHARP:
        raise NotUniform("the picture fades into its background (a shadow or a glow)")


def _contrast(logo: Mask, distance: Field) -> float:
    """Distance to the background from which a pixel clearly belongs to the logo."""
    return _STRONG * float(np.percentile(distance[logo], 90))


def _connected_to_border(alike: Mask) -> Mask:
    """The pixels that can be reached from the border without crossing the logo."""
    _, labels = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    edge = _border(*alike.shape)
    reached = np.unique(np.asarray(labels)[edge & alike])
    return np.asarray(np.isin(labels, reached) & alike, dtype=np.bool_)


def _holes(enclosed: Mask, distance: Field, noise: float) -> tuple[Mask, int]:
    """The enclosed patches that show the background, and how many they are.

    White letters on a white page and the inside of an O have nearly the same colour. A hole shows the background
    through the logo, so its colour is the fitted one to within the background's noise. A patch of the logo's own,
    similar paint is off by a shade.
    """
    found = np.zeros_like(enclosed)
    opened = 0
    for window, patch in _patches(enclosed, 4, at_least=_SMALLEST_HOLE * enclosed.size):
        core = np.asarray(cv2.erode(patch.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0), dtype=np.bool_)
        if float(np.median(distance[window][core if core.any() else patch])) <= noise + _SAME:
            found[window] |= patch
            opened += 1
    return found, opened


def _patches(mask: Mask, connectivity: int, *, at_least: float = 0) -> Iterator[tuple[Window, Mask]]:
    """The bounding box of each connected patch of at least so many pixels, and the patch within that box."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        if area >= at_least:
            window = (slice(top, top + height), slice(left, left + width))
            yield window, labels[window] == label


def _stray(logo: Mask, distance: Field) -> Mask:
    """Noise: faint patches beside the background and off the logo's strong pixels that are either small, or close to
    the logo and weak enough to be JPEG artefacts.

    A faint patch that is large or reaches further is a shade of the logo, and a faint pixel next to a strong one is
    antialiasing.
    """
    found = np.zeros_like(logo)
    if not logo.any():
        return found
    contrast = _contrast(logo, distance)
    strong = (logo & (distance >= contrast)).astype(np.uint8)
    beyond = ~_grown(strong, _JPEG_REACHES)
    outside = _grown((~logo).astype(np.uint8), 1)
    for window, patch in _patches(logo & ~_grown(strong, _EDGE), 8):
        is_small = np.count_nonzero(patch) < _LARGEST_SPECK * logo.size
        is_weak = not beyond[window][patch].any() and float(np.median(distance[window][patch])) < _BLEEDS * contrast
        if (is_small or is_weak) and outside[window][patch].any():
            found[window] |= patch
    return found


def _grown(mask: NDArray[np.uint8], by: int) -> Mask:
    """The mask dilated by so many pixels."""
    return np.asarray(cv2.dilate(mask, np.ones((2 * by + 1, 2 * by + 1), np.uint8)), dtype=np.bool_)


def _unmixed(rgb: NDArray[np.uint8], fitted: Field, background: Mask, edge: int) -> tuple[NDArray[np.uint8], Field]:
    """Colour and opacity, where pixels along the cut are unmixed into logo and background.

    There a pixel is p = a * logo + (1 - a) * background. The background is the fitted colour and the logo's colour is
    that of the nearest pixel well inside it, so a follows by projection, and the background's share is subtracted from
    p. A pixel that is less like the background than that logo pixel is not a mixture: it is a stroke and stays opaque.
    """
    kernel = np.ones((2 * edge + 1, 2 * edge + 1), np.uint8)
    outside = background.astype(np.uint8)
    inside = np.asarray(cv2.erode(1 - outside, kernel, borderValue=1), dtype=np.bool_)
    band = ~inside & ~background
    colours = rgb.astype(np.float32)
    plain = np.asarray(cv2.cvtColor(fitted, cv2.COLOR_LAB2RGB), dtype=np.float32).clip(0, 1) * 255
    alpha = (~background).astype(np.float32)
    rows, columns = np.nonzero(band)
    here, behind = colours[rows, columns], plain[rows, columns]
    span = _logo_near(colours, inside, plain, rows, columns, edge) - behind
    length = (span**2).sum(axis=1)
    opacity = np.clip(((here - behind) * span).sum(axis=1) / np.maximum(length, 1e-3), 0, 1)
    opacity[length <= np.maximum(((here - behind) ** 2).sum(axis=1), _CLEAR**2)] = 1
    opacity[opacity <= _FAINT] = 0
    alpha[rows, columns] = opacity
    share = np.maximum(opacity, _FAINT)[:, None]
    colours[rows, columns] = np.clip((here - (1 - share) * behind) / share, 0, 255)
    colours[alpha == 0] = 0
    return np.round(colours).astype(np.uint8), alpha


def _logo_near(colours: Field, inside: Mask, plain: Field, rows: Index, columns: Index, edge: int) -> Field:
    """The logo's own colour at pixels along the cut, points x RGB: that of the nearest pixel well inside.

    A stroke thinner than twice the edge has no inside; there it is the nearby pixel that is least like the background.
    """
    distance, labels = cv2.distanceTransformWithLabels(
        (~inside).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    labels = np.asarray(labels)
    lookup = np.zeros((int(labels.max()) + 1, 3), dtype=np.float32)
    lookup[labels[inside]] = colours[inside]
    logo: Field = lookup[labels[rows, columns]]
    thin = np.asarray(distance)[rows, columns] > 2 * edge
    best = np.full(int(thin.sum()), -1.0, dtype=np.float32)
    stand_in = np.zeros((len(best), 3), dtype=np.float32)
    for down in range(-edge, edge + 1):
        for right in range(-edge, edge + 1):
            y = np.clip(rows[thin] + down, 0, colours.shape[0] - 1)
            x = np.clip(columns[thin] + right, 0, colours.shape[1] - 1)
            unlike = ((colours[y, x] - plain[y, x]) ** 2).sum(axis=1)
            better = unlike > best
            best[better] = unlike[better]
            stand_in[better] = colours[y[better], x[better]]
    logo[thin] = stand_in
    return logo
