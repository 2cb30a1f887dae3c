"""Every format, mode, orientation and profile comes out as the picture that went in."""

import io
import os
import struct

import cv2
import numpy as np
import pi_heif
import pytest
from PIL import Image

from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare, render
from imgpipe_orchestration_tests.imaging import hostile
from imgpipe_orchestration_tests.imaging.corpus import (
    SMALL,
    difference,
    encoded,
    exif_of,
    flat_png,
    picture,
    png_chunk,
    prepared_pixels,
)

WIDTH, HEIGHT = 160, 120


def _picture() -> Image.Image:
    return picture(WIDTH, HEIGHT)


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, WIDTH // 2, HEIGHT))
    return image


def _sixteen_bit(image: Image.Image) -> bytes:
    deep = np.asarray(image).astype(np.uint16)[..., ::-1] * 257
    return cv2.imencode(".png", deep)[1].tobytes()


def _deep_grey(kind: str) -> bytes:
    deep = np.asarray(_picture().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(deep), kind)


OPAQUE = {
    "jpeg": lambda: ("jpeg", encoded(_picture(), "JPEG", quality=95)),
    "jpeg progressive": lambda: ("jpeg", encoded(_picture(), "JPEG", quality=95, progressive=True, subsampling=0)),
    "jpeg cmyk": lambda: ("jpeg", encoded(_picture().convert("CMYK"), "JPEG", quality=97)),
    "png": lambda: ("png", encoded(_picture(), "PNG")),
    "png 16 bit": lambda: ("png", _sixteen_bit(_picture())),
    "png palette": lambda: ("png", encoded(_picture().quantize(256), "PNG")),
    "png opaque alpha": lambda: ("png", encoded(_picture().convert("RGBA"), "PNG")),
    "webp": lambda: ("webp", encoded(_picture(), "WEBP", quality=95)),
    "webp lossless": lambda: ("webp", encoded(_picture(), "WEBP", lossless=True)),
    "avif": lambda: ("avif", encoded(_picture(), "AVIF", quality=95, speed=9, subsampling="4:4:4")),
    "gif": lambda: ("gif", encoded(_picture().quantize(256), "GIF")),
    "tiff": lambda: ("tiff", encoded(_picture(), "TIFF")),
    "tiff lzw": lambda: ("tiff", encoded(_picture(), "TIFF", compression="tiff_lzw")),
    "tiff jpeg": lambda: ("tiff", encoded(_picture(), "TIFF", compression="jpeg", quality=95)),
    "tiff cmyk": lambda: ("tiff", encoded(_picture().convert("CMYK"), "TIFF")),
    "bmp": lambda: ("bmp", encoded(_picture(), "BMP")),
    "bmp palette": lambda: ("bmp", encoded(_picture().quantize(256), "BMP")),
}
GREY = {
    "jpeg grey": lambda: encoded(_picture().convert("L"), "JPEG", quality=95),
    "png grey": lambda: encoded(_picture().convert("L"), "PNG"),
    "png grey 16 bit": lambda: _deep_grey("PNG"),
    "tiff grey 16 bit": lambda: _deep_grey("TIFF"),
}
TRANSPARENT = {
    "png": lambda: encoded(_with_alpha(_picture()), "PNG"),
    "png palette": lambda: encoded(_with_alpha(_picture()).quantize(255), "PNG"),
    "png grey": lambda: encoded(_with_alpha(_picture()).convert("LA"), "PNG"),
    "webp": lambda: encoded(_with_alpha(_picture()), "WEBP", quality=95),
    "avif": lambda: encoded(_with_alpha(_picture()), "AVIF", quality=95, speed=9),
    "gif": lambda: encoded(_with_alpha(_picture()), "GIF"),
    "tiff": lambda: encoded(_with_alpha(_picture()), "TIFF"),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_an_opaque_image_of_any_kind_becomes_the_same_rgb_picture(name: str) -> None:
    kind, data = OPAQUE[name]()
    assert sniff(data).format == kind
    result = prepared_pixels(data)
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert difference(result, np.asarray(_picture())) < (9 if "palette" in name or "gif" in name else 4)


@pytest.mark.parametrize("name", GREY)
def test_grey_of_any_depth_keeps_its_brightness(name: str) -> None:
    assert difference(prepared_pixels(GREY[name]()), np.asarray(_picture().convert("L").convert("RGB"))) < 2


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_of_any_kind_survives(name: str) -> None:
    result = prepared_pixels(TRANSPARENT[name]())
    assert result.shape == (HEIGHT, WIDTH, 4)
    assert (result[:, : WIDTH // 2 - 2, 3] < 8).all()
    assert (result[:, WIDTH // 2 + 2 :, 3] > 247).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("brightest", [False, True])
def test_one_transparent_level_of_grey_becomes_transparency_at_every_depth(depth: int, brightest: bool) -> None:
    most = 2**depth - 1
    left, right = (most, 0) if brightest else (most // 3, most)
    row = int("".join(f"{level:0{depth}b}" for level in [left] * 16 + [right] * 16), 2).to_bytes(depth * 4)
    result = prepared_pixels(flat_png(depth, 0, row, (b"tRNS", struct.pack(">H", left))))
    assert result[:, :16, 3].max() == 0
    grey = round(255 * right / most)
    assert (result[:, 16:] == (grey, grey, grey, 255)).all()


def test_one_transparent_colour_of_sixteen_bits_becomes_transparency() -> None:
    key = struct.pack(">HHH", 0x1234, 0x5678, 0x9ABC)
    result = prepared_pixels(flat_png(16, 2, key * 16 + struct.pack(">HHH", 0xFFFF, 0, 0) * 16, (b"tRNS", key)))
    assert result[:, :16, 3].max() == 0
    assert (result[:, 16:] == (255, 0, 0, 255)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", pytest.param("HEIF", marks=pytest.mark.slow)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright_in_every_format(kind: str, orientation: int) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _picture().transpose(back[orientation]) if orientation > 1 else _picture()
    prepared = prepare(encoded(stored, kind, exif=exif_of({0x0112: orientation})), MEDIA)
    assert prepared.size == (WIDTH, HEIGHT)
    assert difference(np.asarray(prepared.image), np.asarray(_picture())) < 8


@pytest.mark.parametrize(("alpha", "shape"), [(0, (8, 8, 3)), (255, (8, 8, 3)), (128, (8, 8, 4))])
def test_a_bmp_whose_alpha_was_never_written_is_no_invisible_picture(alpha: int, shape: tuple[int, ...]) -> None:
    pixels = bytes((30, 120, 200, alpha)) * 64
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    result = prepared_pixels(hostile.masked_bmp(8, 8, 32, masks, pixels, header=124))
    assert result.shape == shape
    assert (result[..., :3] == (200, 120, 30)).all()


def test_an_orientation_in_xmp_turns_nothing_as_in_browsers() -> None:
    xmp = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    for kind in ("JPEG", "WEBP", "AVIF"):
        data = encoded(_picture(), kind, xmp=xmp, exif=exif_of({0x8298: "(c) 2026 Ada"}))
        assert prepare(data, MEDIA).owner["copyright"] == "(c) 2026 Ada", kind
        for one in (data, encoded(_picture(), kind, xmp=xmp)):
            assert sniff(one).orientation == 1, kind


def test_grey_that_was_multiplied_by_its_alpha_is_divided_by_it() -> None:
    plain = encoded(Image.new("LA", (8, 8), (60, 128)), "TIFF")
    extra_samples = [struct.pack("<HHII", 338, 3, 1, meaning) for meaning in (2, 1)]
    assert extra_samples[0] in plain
    result = prepared_pixels(plain.replace(*extra_samples))
    assert np.abs(result[0, 0].astype(int) - (120, 120, 120, 128)).max() <= 1


def test_a_png_may_carry_its_exif_behind_its_pixels() -> None:
    block = exif_of({0x0112: 6, 0x8298: "(c) 2026 Ada"}).removeprefix(b"Exif\0\0")
    data = encoded(_picture(), "PNG")
    end = data.index(b"IEND") - 4
    data = data[:end] + png_chunk(b"eXIf", block) + data[end:]
    assert (sniff(data).orientation, prepare(data, MEDIA).owner["copyright"]) == (6, "(c) 2026 Ada")


def test_nonsense_in_exif_costs_nothing_but_itself() -> None:
    data = encoded(_picture(), "JPEG", quality=95, exif=exif_of({0x0112: 77}))
    broken = data.replace(b"MM\0*", b"MM\xff\xff").replace(b"II*\0", b"II\xff\xff")
    for file in (data, broken):
        assert sniff(file).orientation == 1


def test_an_animation_gives_its_first_frame_and_says_so() -> None:
    frames = [_picture(), Image.new("RGB", (WIDTH, HEIGHT), "red")]
    for kind in ("GIF", "WEBP", "PNG", "AVIF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
        assert sniff(data).animated, kind
        prepared = prepare(data, MEDIA)
        assert "first frame" in prepared.notes[0]
        assert difference(np.asarray(prepared.image.convert("RGB")), np.asarray(_picture())) < 12, kind


def test_a_phone_s_jpeg_with_a_second_picture_in_it_is_no_animation() -> None:
    data = encoded(_picture(), "MPO", save_all=True, append_images=[_picture().resize((80, 60))], quality=95)
    sniffed = sniff(data)
    assert (sniffed.format, sniffed.animated, sniffed.width) == ("jpeg", False, WIDTH)
    assert difference(prepared_pixels(data), np.asarray(_picture())) < 4


def test_of_all_metadata_only_copyright_and_credit_survive() -> None:
    exif = Image.Exif()
    exif[0x8298] = "(c) 2026 Ada"
    exif[0x013B] = "Ada Lovelace"
    exif[0x010F] = "SecretCam"
    exif.get_ifd(0x8825)[1] = "N"
    rendition = render(encoded(_picture(), "JPEG", exif=exif.tobytes(), comment=b"private"), SMALL)
    for variant in rendition.variants:
        with Image.open(io.BytesIO(variant.data)) as image:
            assert dict(image.getexif()) == {0x8298: "(c) 2026 Ada", 0x013B: "Ada Lovelace"}, variant.format
            assert "icc_profile" not in image.info
        assert b"private" not in variant.data


_XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:creator><rdf:Seq><rdf:li>Ω &amp; Zoë</rdf:li><rdf:li>Ada</rdf:li></rdf:Seq></dc:creator>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© 2026 Ω</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def _owner(data: bytes) -> tuple[str, str]:
    owner = prepare(data, MEDIA).owner
    return owner["copyright"], owner["credit"]


def test_an_owner_named_by_xmp_alone_is_kept() -> None:
    packet = _XMP.encode()
    assert _owner(encoded(_picture(), "TIFF", tiffinfo={700: packet})) == ("© 2026 Ω", "Ω & Zoë")
    exif = exif_of({0x8298: "(c) 2026 Ada"})
    for kind in ("JPEG", "WEBP", "AVIF"):
        assert _owner(encoded(_picture(), kind, xmp=packet)) == ("© 2026 Ω", "Ω & Zoë"), kind
        assert _owner(encoded(_picture(), kind, xmp=packet, exif=exif)) == ("(c) 2026 Ada", "Ω & Zoë"), kind
    assert _owner(encoded(_picture(), "JPEG", xmp=packet.replace(b"</dc:rights>", b""))) == ("", "Ω & Zoë")


def test_an_author_named_by_iptc_alone_is_kept() -> None:
    author = b"\x1c\x02\x50\x00\x03Ivo"
    block = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + len(author).to_bytes(4) + author
    data = encoded(_picture(), "JPEG")
    assert _owner(data[:2] + b"\xff\xed" + (len(block) + 2).to_bytes(2) + block + data[2:]) == ("", "Ivo")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_names_keep_their_letters(charset: str) -> None:
    exif = exif_of({0x8298: "© 2026 Zoë".encode(charset), 0x013B: "Müller".encode(charset)})
    rendition = render(encoded(_picture(), "JPEG", exif=exif), SMALL)
    for variant in rendition.variants:
        assert _owner(variant.data) == ("© 2026 Zoë", "Müller"), variant.format
        assert "© 2026 Zoë".encode() in variant.data


def test_heic_is_read() -> None:
    data = encoded(_picture(), "HEIF", quality=95, exif=exif_of({0x0112: 6}))
    original = sniff(data)
    assert pi_heif.options.DECODE_THREADS == 1, "several take more addresses than a worker has: 50 MP were refused"
    assert original.format == "heic"
    assert original.upright_size == (HEIGHT, WIDTH)
    upright = np.asarray(_picture().transpose(Image.Transpose.ROTATE_270))
    assert difference(prepared_pixels(data), upright) < 6


def test_a_png_may_have_a_large_colour_profile() -> None:
    profile = os.urandom(1_500_000)
    assert sniff(encoded(Image.new("RGB", (8, 8)), "PNG", icc_profile=profile)).upright_size == (8, 8)
