"""Every mode and colour space to 8 bits of sRGB, and transparency removed: where there is none, and by laying an
image over a plain colour."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from imgpipe_orchestration.imaging.libvips import into_libvips, out_of_libvips
from imgpipe_orchestration.imaging.limits import MAX_ICC_BYTES
from imgpipe_orchestration.imaging.reading.metadata import DISPLAY_P3

Floats = NDArray[np.float64]
Backdrop = tuple[int, int, int]
WHITE, GREY, DARK = (255, 255, 255), (128, 128, 128), (32, 32, 32)
_DISTINCT = 48
"""Levels of brightness by which a pixel must differ from a backdrop to be seen on it; each pixel does from two of the
three."""
_OPEN = 0.05
"""Transparent share of a picture's edges from which it has no background; rounded corners alone take that up."""
_OPAQUE = 250
"""Levels of 255 from which nothing is seen through a pixel; lossy formats leave a few less than all."""
_ENOUGH = 250_000
"""Pixels that are looked at for the choice of a backdrop."""
_CUBE_STEPS = 6
_MOST_TAGS = 100
"""Tags beyond which LittleCMS reads no profile (MAX_TABLE_TAG)."""


def to_eight_bits(image: Image.Image) -> Image.Image:
    """L, LA, RGB, RGBA, CMYK or LAB with 8 bits a channel.

    16-bit grey is scaled; Pillow's `convert("L")` would clip everything above 255 to white. A palette or a transparent
    colour becomes RGB or RGBA, because a resize would mix palette indices.
    """
    if image.mode.startswith("I;16"):
        return _scaled_grey(image)
    if "transparency" in image.info and image.mode in ("1", "L", "RGB", "P"):
        return image.convert("RGBA")
    if image.mode == "P":
        return image.convert("RGBA" if image.palette and image.palette.mode == "RGBA" else "RGB")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "LAB"):
        return image
    return image.convert({"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode, "RGB"))


def _scaled_grey(image: Image.Image) -> Image.Image:
    whole = np.asarray(image)
    grey = Image.fromarray((whole >> 8).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(whole == image.info["transparency"], 0, 255).astype(np.uint8)))
    grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return grey


def to_srgb(image: Image.Image) -> tuple[Image.Image, str | None]:
    """RGB or RGBA in sRGB, by the image's profile where it has a usable one, else by its code points.

    Returns:
        The image, without a profile, and a note where its profile was ignored (it then counts as sRGB, as in browsers),
        or where it is CMYK without a profile.
    """
    profile = image.info.get("icc_profile")
    target = "RGBA" if image.mode in ("LA", "RGBA") else "RGB"
    note = None
    if profile and len(profile) <= MAX_ICC_BYTES:
        try:
            return _bare(_transformed(image, profile, target)), None
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
            note = f"colour profile ignored: {error}"
    elif profile:
        note = f"colour profile ignored: {len(profile):,} bytes"
    elif DISPLAY_P3 in image.info:
        return _bare(_from_display_p3(image if image.mode == target else image.convert(target))), None
    elif image.mode == "CMYK":
        note = "CMYK without a colour profile: colours are approximate"
    return _bare(image if image.mode == target else image.convert(target)), note


def _transformed(image: Image.Image, profile: bytes, target: str) -> Image.Image:
    """The image converted by its profile. Grey and CMYK profiles need the original grey and CMYK values."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(without_elements(profile)))
    space = source.profile.xcolor_space.strip()
    if space == "GRAY" and image.mode in ("RGB", "RGBA", "LA"):
        # One made of a grey palette, or of grey with a transparent level, is grey in RGB.
        if image.mode != "LA" and len({image.getchannel(name).tobytes() for name in "RGB"}) > 1:
            raise ValueError("it is for grey pictures, and this one has colours")
        return _with_alpha_of(image, _transformed(image.convert("L"), profile, "RGB"))
    if space == "RGB" and image.mode in ("L", "LA"):
        image = image.convert(target)
    elif image.mode == "LA":
        return _with_alpha_of(image, _transformed(image.convert("L"), profile, "RGB"))
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        image.mode,
        target,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if image.mode == target and _changes_nothing(transform, target):
        return image
    return ImageCms.applyTransform(image, transform) or image


def without_elements(profile: bytes) -> bytes:
    """The profile with its D2B and B2D tags renamed, so that LittleCMS ignores them.

    It takes time quadratic in their length, 175 s for 1.6 MB. No browser reads them, and every profile with them has
    other tags as a substitute (ICC.1:2022, 9.2.17).
    """
    changed = bytearray(profile)
    for at in range(132, 132 + 12 * min(int.from_bytes(profile[128:132]), _MOST_TAGS), 12):
        if profile[at : at + 3] in (b"D2B", b"B2D"):
            changed[at : at + 1] = profile[at : at + 1].lower()
    return bytes(changed)


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the profile is equivalent to sRGB: no colour of a coarse cube moves by more than 1 level.

    There are too many sRGB profiles to recognise them by name or digest. This takes a fraction of a millisecond.
    """
    steps = np.linspace(0, 255, _CUBE_STEPS).astype(np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(_CUBE_STEPS, -1, 3)
    before = Image.fromarray(cube).convert(mode)
    after = ImageCms.applyTransform(before, transform) or before
    difference = np.asarray(before, dtype=np.int16) - np.asarray(after, dtype=np.int16)
    return bool(np.abs(difference).max() <= 1)


def _with_alpha_of(image: Image.Image, colours: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return colours
    result = colours.convert("RGBA")
    result.putalpha(image.getchannel("A"))
    return result


def _bare(image: Image.Image) -> Image.Image:
    """A copy without the profile in `info`, which encoders would write into their files."""
    bare = image.copy()
    bare.info = {}
    return bare


def _from_display_p3(image: Image.Image) -> Image.Image:
    """An RGB or RGBA picture in sRGB. Colours outside sRGB are clipped."""
    picture = into_libvips(image.convert("RGB")).copy(interpretation="srgb")
    return _with_alpha_of(image, out_of_libvips(picture.icc_transform("srgb", input_profile="p3"), "RGB"))


def srgb_light(value: Floats) -> Floats:
    """sRGB values to linear light, both 0 to 1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def drop_opaque_alpha(image: Image.Image) -> Image.Image:
    """RGB where no pixel of an RGBA image is transparent; files get smaller, and JPEG becomes possible."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    return image


def has_open_edges(image: Image.Image) -> bool:
    """Whether an RGBA image is transparent at its edges. A transparent patch inside does not count."""
    return float((_along_edges(image) < 128).mean()) >= _OPEN


def has_opaque_edges(image: Image.Image) -> bool:
    """Whether an RGBA image is a whole rectangle, without rounded corners or edges that are seen through."""
    return bool(_along_edges(image).min() >= _OPAQUE)


def _along_edges(image: Image.Image) -> NDArray[np.uint8]:
    alpha = np.asarray(image.getchannel("A"))
    return np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])


def flattened(image: Image.Image, backdrop: Backdrop | None = None) -> Image.Image:
    """An RGBA image laid over a plain colour (`backdrop_for` by default), as RGB; others unchanged."""
    if image.mode != "RGBA":
        return image
    plain = Image.new("RGBA", image.size, (*(backdrop or backdrop_for(image)), 255))
    return Image.alpha_composite(plain, image).convert("RGB")


def backdrop_for(image: Image.Image, usual: Backdrop = WHITE) -> Backdrop:
    """A backdrop that shows at least half of what is visible of an RGBA image: the usual one unless it hides more, as
    white does with a white logo."""
    step = max(1, round((image.width * image.height / _ENOUGH) ** 0.5))
    brightness = np.asarray(image.convert("RGB").convert("L"))[::step, ::step].ravel()
    opacity = np.asarray(image.getchannel("A"))[::step, ::step].ravel()
    visible = np.bincount(brightness, opacity, minlength=256)
    for backdrop in (usual, WHITE, DARK):
        seen = np.abs(np.arange(256) - backdrop[0]) >= _DISTINCT
        if 2 * visible[seen].sum() >= visible.sum():
            return backdrop
    return usual
