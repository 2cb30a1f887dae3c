"""A JPEG XL is read without all that its container may hold, but with whose picture it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits
from imgpipe_orchestration.imaging.reading import jxl
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging.corpus import difference, encoded, picture, prepared_pixels

BOB = b"MM\0*\0\0\0\x08\0\x01\x82\x98\0\x02\0\0\0\x05\0\0\0\x1a\0\0\0\0Bob!\0"
SIZES = [(1, 1), (64, 64), (256, 8), (640, 480), (333, 202), (1200, 1000)]


def _in_container(size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    return encoded(picture(*size), "JXL", use_container=True, **options)


def _box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4) + kind + content


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What stands before the box of the code stream, and the code stream."""
    at = data.index(b"jxlc") - 4
    length = int.from_bytes(data[at : at + 4])
    return data[:at], data[at + 8 : at + length if length else None]


@pytest.mark.parametrize("size", SIZES)
def test_its_size_is_known_before_it_is_decoded(size: tuple[int, int]) -> None:
    bare, boxed = encoded(picture(*size), "JXL"), _in_container(size)
    assert jxl.size(bare, DEFAULT_LIMITS) == jxl.size(boxed, DEFAULT_LIMITS) == size
    with pytest.raises(TooLarge):
        sniff(boxed, Limits(max_pixels=size[0] * size[1] - 1) if size != (1, 1) else Limits(max_side=0))


@pytest.mark.parametrize("preview", ["0", "1001" + 10 * "1" + "100", "1111" + 9 * "1" + "00000"])
@pytest.mark.parametrize("intrinsic", ["0", "1100010110"])
def test_an_animation_is_refused_for_its_reader_shows_the_last_frame(preview: str, intrinsic: str) -> None:
    size = "100001100"  # small, its height in units of eight, square; all bits lowest first
    stills = ["1", "00", "01000" + intrinsic + preview + "0"]
    for still in stills:
        jxl.size(_header(size + still), DEFAULT_LIMITS)
    with pytest.raises(BadImage, match="animation"):
        sniff(_header(size + stills[2][:-1] + "1"))


def _header(bits: str) -> bytes:
    return b"\xff\x0a" + int(bits[::-1], 2).to_bytes(40, "little")


def test_owner_and_pixels_stay_and_the_rest_goes() -> None:
    whole = _in_container(exif=BOB)
    more = whole + _box(b"xml ", b"<x/>" * 1000) + _box(b"free", bytes(1000))
    assert prepare(more, MEDIA).source.copyright == "Bob!"
    assert len(jxl.readable(more, DEFAULT_LIMITS)) < len(whole) + 50
    assert (prepared_pixels(more) == prepared_pixels(whole)).all()
    assert jxl.readable(encoded(picture(64, 48), "JXL"), DEFAULT_LIMITS) == encoded(picture(64, 48), "JXL")


def test_an_owner_named_by_xmp_alone_is_kept() -> None:
    whole = _in_container()
    rights = b"<dc:rights><rdf:Alt><rdf:li>Bob!</rdf:li></rdf:Alt></dc:rights>"
    assert prepare(whole + _box(b"xml ", rights), MEDIA).source.copyright == "Bob!"
    assert prepare(whole + _box(b"xml ", rights + bytes(2**20)), MEDIA).source.copyright == ""


def test_a_code_stream_may_come_in_pieces_and_behind_much_else() -> None:
    head, stream = _split(_in_container())
    pieces = [stream[:1], stream[1:9], stream[9:]]
    parts = b"".join(_box(b"jxlp", number.to_bytes(4) + piece) for number, piece in enumerate(pieces))
    last = (0).to_bytes(4) + b"jxlc" + stream  # a box without a length goes to the end
    wide = (1).to_bytes(4) + b"jxlc" + (16 + len(stream)).to_bytes(8) + stream
    for body in (parts, last, wide):
        data = head + _box(b"xml ", bytes(10_000)) + body
        assert sniff(data).width == 64
        assert (prepared_pixels(data) == prepared_pixels(_in_container())).all()


def test_a_size_that_stands_elsewhere_is_not_believed() -> None:
    head, stream = _split(_in_container((640, 480)))
    small = encoded(picture(1, 1), "JXL")
    data = head + _box(b"free", b"jxlc" + small) + _box(b"jxlc", stream)
    with pytest.raises(TooLarge, match="640x480"):
        sniff(data, Limits(max_pixels=1000))


def test_a_jpeg_in_it_has_its_pixels(tmp_path: Path) -> None:
    jpeg, file = encoded(picture(160, 120), "JPEG", quality=90, exif=b"Exif\0\0" + BOB), io.BytesIO()
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    with Image.open(tmp_path / "photo.jpg") as image:
        image.save(file, "JXL", lossless_jpeg=True)
    assert b"jbrd" in file.getvalue()
    assert difference(prepared_pixels(file.getvalue()), prepared_pixels(jpeg)) < 1


@pytest.mark.parametrize("at", [12, 20, 40])
def test_a_container_cut_short_holds_nothing(at: int) -> None:
    with pytest.raises(BadImage, match="holds no code stream"):
        sniff(_in_container()[:at])
