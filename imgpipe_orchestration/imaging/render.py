"""One original to all its variants: the pipeline."""

from dataclasses import dataclass, replace

from PIL import Image, ImageChops

from imgpipe_orchestration.imaging.background import NotUniform, remove_background
from imgpipe_orchestration.imaging.colour import (
    WHITE,
    drop_opaque_alpha,
    flattened,
    has_open_edges,
    to_eight_bits,
    to_srgb,
)
from imgpipe_orchestration.imaging.encoding.encode_all import Background, Variant, encode_all
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.plan import output_size, working_size
from imgpipe_orchestration.imaging.reading import metadata
from imgpipe_orchestration.imaging.reading.opening import decode
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import Recipe
from imgpipe_orchestration.imaging.resize import shrink_to
from imgpipe_orchestration.imaging.subject.focus import FocalBox, FocusHints, find_focus
from imgpipe_orchestration.imaging.subject.mark import NOTHING, Mark, find_mark

_SUPPORT: tuple[Format, ...] = ("jpeg", "png", "webp", "avif")
"""From the best supported format to the least."""
_FAR_WORSE = 10.0
"""Points of score that everybody notices: 20 lie between medium and high quality (the metric's own scale)."""


@dataclass(frozen=True, slots=True)
class Rendition:
    """All that was made of one original; it can be pickled."""

    variants: tuple[Variant, ...]
    focus: FocalBox
    notes: tuple[str, ...]
    """Sentences for people: sizes smaller than asked, formats dropped, profiles ignored, and so on."""


@dataclass(frozen=True)
class Prepared:
    """An upright sRGB picture of 8 bits, no larger than the largest size, and what is known about its original."""

    image: Image.Image
    format: str
    size: tuple[int, int]
    """Width and height of the upright original."""
    owner: dict[str, str]
    """Its `copyright` and `credit`."""
    notes: tuple[str, ...]


def render(
    data: bytes, recipe: Recipe, focus: FocusHints | None = None, is_logo: bool = False, *, threads: int = 1
) -> Rendition:
    """Every size of the recipe in every format.

    Args:
        data: the original, any format that `sniff` knows.
        focus: what is known about the subject; without it faces and saliency are looked for.
        is_logo: crops that would cut the logo show all of it, on more of its background where that is plain; and every
            size is also made with the background removed. Where either is not safe, it is not done and a note says why.
        threads: as in `encode_all`.

    Raises:
        BadImage: not an image, broken, cut short.
        TooLarge: past a limit.
    """
    prepared = prepare(data, recipe)
    exif = metadata.exif_block(prepared.owner)
    notes = list(prepared.notes)
    mark = find_mark(prepared.image) if is_logo else None
    pictures: list[tuple[Background, Image.Image, Mark | None]] = [("original", prepared.image, mark)]
    if is_logo:
        if not mark:
            notes.append("crops may cut the logo: its background is not one plain colour, or nothing stands on it")
        cut_out, note = _without_background(prepared)
        notes.append(note)
        if cut_out:
            pictures.append(("removed", cut_out, replace(mark, background=NOTHING) if mark else find_mark(cut_out)))
    variants: list[Variant] = []
    focal_boxes: list[FocalBox] = []
    for background, picture, own in pictures:
        fill, box = (own.background, own.box) if own else ((), None)
        focal = find_focus(prepared.image, focus, box)
        made = encode_all(picture, focal, recipe, exif=exif, background=background, fill=fill, threads=threads)
        kept, dropped = _worth_keeping(made)
        notes += [f"{background} {note}" if background == "removed" else note for note in dropped]
        variants += kept
        focal_boxes.append(focal)
    found = focal_boxes[0]
    notes += _shortfalls(recipe, prepared.size, found.core if mark else None)
    return Rendition(tuple(variants), found, tuple(notes))


def prepare(data: bytes, recipe: Recipe) -> Prepared:
    """Decode and normalise, in the order that costs least:

    1. decode; a JPEG at 1/2, 1/4 or 1/8 where that is still as large as the largest size; a plain JPEG or PNG is
       shrunk while it is decoded
    2. 8 bits a channel and no palette, as resizing needs
    3. shrink to the largest size, so that all further steps work on fewer pixels
    4. sRGB, which takes 55 ms for 4.7 megapixels
    5. rotate upright
    6. drop an opaque alpha channel

    Raises:
        BadImage, TooLarge: as `render`.
    """
    original = sniff(data)
    owner = metadata.ownership(original.image)
    enough = working_size(*original.upright_size, recipe)
    image = decode(original, enough)
    image = to_eight_bits(image)
    image = shrink_to(image, *original.stored(enough))
    image, note = to_srgb(image)
    image = metadata.upright(image, original.orientation)
    image = drop_opaque_alpha(image)
    notes = [note] if note else []
    if original.animated:
        notes.append("animated: the first frame was used")
    return Prepared(image, original.format, original.upright_size, owner, tuple(notes))


def _without_background(prepared: Prepared) -> tuple[Image.Image | None, str]:
    """The picture without its background and what was done, or None and why not."""
    image = prepared.image
    if image.mode == "RGBA" and has_open_edges(image):
        return image, "background removed: the original has none"
    try:
        cut = remove_background(flattened(image, WHITE), is_jpeg=prepared.format == "jpeg")
    except NotUniform as error:
        return None, f"background not removed: {error.public}"
    except MemoryError:
        return None, "background not removed: the picture is too large for it"
    if image.mode == "RGBA":
        cut.image.putalpha(ImageChops.darker(cut.image.getchannel("A"), image.getchannel("A")))
    return cut.image, f"background removed: {cut.removed:.0%} of the picture, {cut.holes} enclosed patches"


def _worth_keeping(made: list[Variant]) -> tuple[list[Variant], list[str]]:
    """The files to keep, and a note for each dropped one.

    A file is dropped if one of the same size in a better supported format is no larger, or if it scores so much worse
    than those that its format evidently cannot show the picture.
    """
    kept, notes = [], []
    cannot_show = {file.format for file in made if _lag(file, made) > _FAR_WORSE}
    shown = [one for one in made if _lag(one, made) <= _FAR_WORSE]
    shown = [one for one in shown if one.score is not None or not one.quality or one.format not in cannot_show]
    for file in made:
        better = [one for one in _rivals(file, shown) if len(one.data) <= len(file.data)]
        if better:
            rival = min(better, key=lambda one: len(one.data))
            notes.append(
                f"{file.size}: {file.format} dropped, its {len(file.data):,} bytes are not fewer than the"
                f" {len(rival.data):,} of {rival.format}"
            )
        elif file in shown:
            kept.append(file)
        else:
            notes.append(f"{file.size}: {file.format} dropped, it cannot show the picture's colours as others do")
    return kept, notes


def _rivals(file: Variant, made: list[Variant]) -> list[Variant]:
    """The files of the same size in better supported formats."""
    rank = _SUPPORT.index(file.format)
    return [one for one in made if one.size == file.size and _SUPPORT.index(one.format) < rank]


def _lag(file: Variant, made: list[Variant]) -> float:
    """Points by which a file scores less than the best one of its size; 0 where scores are missing, and for the best
    supported format, which is kept in any case."""
    scores = [one.score for one in made if one.size == file.size and one.score is not None]
    return 0.0 if file.score is None or not _rivals(file, made) else max(scores) - file.score


def _shortfalls(recipe: Recipe, original: tuple[int, int], whole: Box | None) -> list[str]:
    """A note for each size that is smaller than asked, because nothing is enlarged."""
    notes = []
    for size in recipe.sizes:
        width, height = output_size(*original, size, whole)
        # One that fits within the size reaches at least one of its sides, unless the original is smaller than both.
        reaches = (width == size.width, height == size.height)
        if not (all(reaches) if size.fit == "crop" else any(reaches)):
            notes.append(f"{size.name}: {width}x{height} instead of {size.width}x{size.height}, as nothing is enlarged")
    return notes
