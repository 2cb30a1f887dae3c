"""One original to all its variants: the pipeline."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image

from imgpipe_orchestration.imaging import metadata
from imgpipe_orchestration.imaging.alpha import drop_opaque_alpha
from imgpipe_orchestration.imaging.colour import to_srgb
from imgpipe_orchestration.imaging.depth import to_eight_bits
from imgpipe_orchestration.imaging.encode import encode
from imgpipe_orchestration.imaging.focus import FocalBox, FocusHints, find_focus
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits
from imgpipe_orchestration.imaging.opening import decode, open_original
from imgpipe_orchestration.imaging.orientation import upright
from imgpipe_orchestration.imaging.plan import Cut, output_size, plan, working_size
from imgpipe_orchestration.imaging.recipe import Format, Recipe, Size
from imgpipe_orchestration.imaging.resize import shrink_to
from imgpipe_orchestration.imaging.variants import Background, Rendition, SourceFacts, Variant


@dataclass(frozen=True)
class Prepared:
    """An upright sRGB picture of 8 bits, no larger than the largest size, and what is known about its original."""

    image: Image.Image
    source: SourceFacts
    notes: tuple[str, ...]


def render(
    data: bytes,
    recipe: Recipe,
    focus: FocusHints | None = None,
    remove_background: bool = False,
    *,
    threads: int = 1,
    limits: Limits = DEFAULT_LIMITS,
) -> Rendition:
    """Every size of the recipe in every format.

    Args:
        data: the original, any format that `sniff` knows.
        focus: what is known about the subject; without it faces and saliency are looked for.
        remove_background: also make every size with the background removed (for logos). Where the background cannot
            be removed safely, the rendition has no such variants and a note that says why.
        threads: encoders that run at once. Decoding, resizing and encoding release Python's lock.

    Raises:
        BadImage: not an image, broken, cut short.
        TooLarge: past a limit.
    """
    prepared = prepare(data, recipe, limits=limits)
    focal = find_focus(prepared.image, focus)
    notes = list(prepared.notes)
    pictures: list[tuple[Background, Image.Image]] = [("original", prepared.image)]
    exif = metadata.exif_block({"copyright": prepared.source.copyright, "credit": prepared.source.credit})
    variants: list[Variant] = []
    with ThreadPoolExecutor(threads) as pool:
        for background, picture in pictures:
            variants += _variants(picture, background, focal, recipe, exif=exif, pool=pool)
    if remove_background:
        notes.append("background not removed: not available yet")
    notes += _shortfalls(recipe, prepared.source)
    return Rendition(tuple(variants), prepared.source, focal, tuple(notes), recipe.version)


def prepare(data: bytes, recipe: Recipe, *, limits: Limits = DEFAULT_LIMITS) -> Prepared:
    """Decode and normalise. The order is the point:

    1. decode, JPEG at a fraction where that is still at least as large as the largest size
    2. 8 bits a channel and no palette: what comes next can only do these
    3. shrink to the largest size: everything after it works on fewer pixels
    4. sRGB: 55 ms for 4.7 megapixels, so not before shrinking
    5. upright: a turn, too, costs less on fewer pixels
    6. drop an alpha channel that hides nothing

    Raises:
        BadImage, TooLarge: as `render`.
    """
    original = open_original(data, limits)
    owner = metadata.ownership(original.image)
    width, height = original.upright_size
    enough = working_size(width, height, recipe)
    image = decode(original, enough)
    image = to_eight_bits(image)
    image = shrink_to(image, *original.stored(enough))
    image, note = to_srgb(image)
    image = upright(image, original.orientation)
    image = drop_opaque_alpha(image)
    sniffed = original.sniffed
    notes = [note] if note else []
    if sniffed.animated:
        notes.append("animated: the first frame was used")
    source = SourceFacts(
        format=sniffed.format,
        mime=sniffed.mime,
        mode=sniffed.mode,
        width=width,
        height=height,
        animated=sniffed.animated,
        has_alpha=image.mode == "RGBA",
        orientation=original.orientation,
        copyright=owner.get("copyright", ""),
        credit=owner.get("credit", ""),
    )
    return Prepared(image, source, tuple(notes))


def _variants(
    picture: Image.Image,
    background: Background,
    focal: FocalBox,
    recipe: Recipe,
    *,
    exif: bytes,
    pool: ThreadPoolExecutor,
) -> list[Variant]:
    """Every size in every format. A size goes to the encoders as soon as it is cut, while the next one is being cut."""
    formats = tuple("png" if kind == "jpeg" and picture.mode == "RGBA" else kind for kind in recipe.formats)
    made: dict[str | None, Image.Image] = {None: picture}
    encoded: dict[tuple[int, Format, int], Future[bytes]] = {}
    pending: list[tuple[Cut, Format, int, Future[bytes]]] = []
    for cut in plan(*picture.size, recipe, focal):
        image = shrink_to(made[cut.source], cut.width, cut.height, cut.box)
        made[cut.size.name] = image
        for kind in formats:
            quality = recipe.quality_of(kind)
            # Sizes of a small original are often one and the same picture.
            key = (id(image), kind, cut.size.avif_speed)
            if key not in encoded:
                encoded[key] = pool.submit(
                    encode, image, kind, quality, recipe, avif_speed=cut.size.avif_speed, exif=exif
                )
            pending.append((cut, kind, quality, encoded[key]))
    order = [size.name for size in recipe.sizes]
    variants = [_variant(cut, kind, background, future.result(), quality) for cut, kind, quality, future in pending]
    return sorted(variants, key=lambda variant: order.index(variant.size))


def _variant(cut: Cut, kind: Format, background: Background, data: bytes, quality: int) -> Variant:
    return Variant(
        size=cut.size.name,
        format=kind,
        background=background,
        width=cut.width,
        height=cut.height,
        data=data,
        sha256=hashlib.sha256(data).hexdigest(),
        quality=quality,
        score=None,
    )


def _shortfalls(recipe: Recipe, source: SourceFacts) -> list[str]:
    """A sentence for each size that is smaller than asked, because nothing is enlarged."""
    notes = []
    for size in recipe.sizes:
        width, height = output_size(source.width, source.height, size)
        short = (width, height) != (size.width, size.height) if size.fit == "crop" else _fits(source, size)
        if short:
            notes.append(f"{size.name}: {width}x{height}, the original has no more for {size.width}x{size.height}")
    return notes


def _fits(source: SourceFacts, size: Size) -> bool:
    return source.width < size.width and source.height < size.height
