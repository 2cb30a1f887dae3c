"""SVG logos: checked, then drawn by librsvg (https://gnome.pages.gitlab.gnome.org/librsvg/) as a PNG, which is all that
is kept of them. `rasterised` belongs into a worker with little time and memory.

librsvg runs no scripts, and from a buffer it loads nothing from outside. What it would expand without need, such as
entities, is refused before it sees the file.
"""

from xml.parsers import expat

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.libvips import libvips

SIDE = 2048
"""Pixels of the longer side of what is drawn."""
_MOST_BYTES = 2_000_000
_MOST_ELEMENTS = 50_000
_DEEPEST = 200
_ADVICE = "save it as a plain SVG in UTF-8, or send PNG"
_START = (b"<svg", b"<?xml", b"<!doctype svg", b"<!--")


def is_svg(data: bytes) -> bool:
    """Whether the file begins as an SVG does."""
    start = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return start.startswith(_START) and b"<svg" in data[:65536].lower()


def check(data: bytes) -> None:
    """Refuse what is not well-formed, or more than a logo.

    Raises:
        BadImage: not XML in UTF-8 with <svg> as its root, or with entities of its own.
        TooLarge: past a limit, which the message names.
    """
    if len(data) > _MOST_BYTES:
        raise TooLarge(f"the SVG has {len(data):,} bytes, the limit is {_MOST_BYTES:,}")
    elements, depth = 0, 0

    def began(name: str, _: dict[str, str]) -> None:
        nonlocal elements, depth
        elements, depth = elements + 1, depth + 1
        if elements == 1 and name.rpartition(":")[2] != "svg":
            raise BadImage(f"not an SVG but XML whose root is <{name[:50]}>: {_ADVICE}")
        if elements > _MOST_ELEMENTS or depth > _DEEPEST:
            most = f"{_MOST_ELEMENTS:,} elements, {_DEEPEST} of them within each other"
            raise TooLarge(f"the SVG is more than a logo: the limit is {most}")

    def ended(_: str) -> None:
        nonlocal depth
        depth -= 1

    def declared(*_: object) -> None:
        raise BadImage(f"the SVG declares entities, which are not read: {_ADVICE}")

    def encoded(_: str, encoding: str | None, __: int) -> None:
        if (encoding or "utf-8").lower() not in ("utf-8", "us-ascii", "ascii"):
            raise BadImage(f"the SVG is not in UTF-8: {_ADVICE}")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler = began, ended
    parser.EntityDeclHandler, parser.XmlDeclHandler = declared, encoded
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise BadImage(f"the SVG is not well-formed ({error}): {_ADVICE}") from error


def rasterised(data: bytes) -> bytes:
    """The SVG as a PNG of `SIDE` pixels.

    Raises:
        BadImage, TooLarge: as `check`; or librsvg cannot draw it.
    """
    check(data)
    try:
        natural = libvips().Image.svgload_buffer(data)
        scale = SIDE / max(natural.width, natural.height)
        drawn = libvips().Image.svgload_buffer(data, scale=scale)
        png: bytes = drawn.write_to_buffer(".png", compression=2)
    except libvips().Error as error:
        raise BadImage(f"the SVG cannot be drawn: {_ADVICE}", detail=str(error)) from error
    return png
