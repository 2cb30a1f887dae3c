"""Files that strangers might send: bombs of each kind. Run as a program it measures what each of them costs."""

import json
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from imgpipe_orchestration_tests.imaging.corpus import PNG, encoded, png_chunk
from imgpipe_orchestration_tests.imaging.profiles import display_p3


def png(width: int, height: int, *chunks: tuple[bytes, bytes], body: bytes = b"", colour: int = 2) -> bytes:
    """A PNG header that claims 8 bits a channel of any size, with any chunks before its pixels; RGB by default."""
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return PNG + b"".join(png_chunk(*part) for part in parts)


def film(kind: str, **options: object) -> bytes:
    """Two frames of 16x16 pixels."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def webp_animation_bomb() -> bytes:
    """Under 200 bytes that claim 7000x7000 pixels in two frames."""
    data = bytearray(film("WEBP", lossless=True))
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (6999).to_bytes(3, "little") * 2
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    data = encoded(Image.effect_noise((600, 600), 60).convert("RGB"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_claiming(width: int, height: int) -> bytes:
    """A TIFF of one strip with an absurd size."""
    data = bytearray(encoded(Image.new("L", (8, 8)), "TIFF"))
    for tag, value in ((256, width), (257, height)):
        at = data.index(struct.pack("<HHI", tag, 4, 1)) if struct.pack("<HHI", tag, 4, 1) in data else -1
        at = at if at >= 0 else data.index(struct.pack("<HHI", tag, 3, 1))
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(data)


def gif_claiming(width: int, height: int) -> bytes:
    """A GIF of one pixel on a huge canvas."""
    return (
        b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0\0\0\0\xff\xff\xff"
        b",\0\0\0\0" + struct.pack("<HH", width, height) + b"\0\x02\x02D\x01\0;"
    )


def avif_claiming(width: int, height: int, coded: tuple[int, int] = (16, 16), *, mode: str = "RGB") -> bytes:
    """An AVIF whose `ispe` boxes claim another size than the one it is coded in."""
    return _restated(encoded(Image.new(mode, coded), "AVIF", speed=10), width, height)


def avif_film_claiming(width: int, height: int) -> bytes:
    """An AVIF of two frames of 16x16 pixels whose track claims another size."""
    data = bytearray(film("AVIF"))
    at = data.index(b"tkhd") + 92
    data[at : at + 8] = struct.pack(">II", width << 16, height << 16)
    return bytes(data)


def avif_with(parts: bytes) -> bytes:
    """A small AVIF with more parts before those of its picture."""
    data = bytearray(encoded(Image.new("RGB", (64, 64)), "AVIF"))
    box = data.index(b"mdat") - 4
    length = len(data) - box - 8
    at = data.index(struct.pack(">II", box + 8, length)) + 4
    data[at : at + 4] = struct.pack(">I", length + len(parts))
    data[box : box + 4] = struct.pack(">I", 8 + length + len(parts))
    return bytes(data[: box + 8] + parts + data[box + 8 :])


def _restated(data: bytes, width: int, height: int) -> bytes:
    """A file of boxes whose `ispe` boxes claim another size."""
    changed, at = bytearray(data), 0
    while (at := changed.find(b"ispe", at) + 8) > 8:
        changed[at : at + 8] = struct.pack(">II", width, height)
    return bytes(changed)


def small_png(*chunks: tuple[bytes, bytes]) -> bytes:
    """16x16 pixels behind any chunks."""
    return png(16, 16, *chunks, body=zlib.compress(bytes(16 * 49)))


def profile_of(content: bytes) -> bytes:
    """A small PNG with a colour profile."""
    return small_png((b"iCCP", b"x\0\0" + zlib.compress(content, 9)))


def orientation_of(count: int) -> bytes:
    """A PNG whose EXIF has an orientation of so many fractions."""
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIIi", 1, 0x0112, 5, count, 26, 0) + bytes(8 * count)
    return small_png((b"eXIf", exif))


def webp_with(chunks: bytes = b"", frames: int = 1) -> bytes:
    """A WebP of 16x16 pixels with chunks before its frames, of which the last one may be repeated."""
    data = film("WEBP", lossless=True)
    first, last = data.index(b"ANMF"), data.rindex(b"ANMF")
    body = data[12:first] + chunks + data[first:last] + data[last:] * frames
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg_with(segments: bytes) -> bytes:
    """A small JPEG with anything before its first segment."""
    data = encoded(Image.new("RGB", (64, 64)), "JPEG")
    return data[:2] + segments + data[2:]


def gif_with(blocks: bytes = b"", frames: int = 1) -> bytes:
    """A small GIF with extensions before its frame, which may be repeated."""
    data = encoded(Image.new("P", (8, 8)), "GIF")
    at = data.index(b",\0\0\0\0")
    return data[:at] + blocks + data[at:-1] * frames + b";"


def tiff(*, more: tuple[tuple[int, int, int, int], ...] = (), **tags: int) -> bytes:
    """A TIFF of 64x64 grey pixels; tags by number (`t256=...`) and whole entries instead of, or beside, its own."""
    values = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 64, 279: 4096}
    values |= {int(name[1:]): value for name, value in tags.items()}
    values = {tag: value for tag, value in values.items() if tag not in {entry[0] for entry in more}}
    entries = sorted([(tag, 4, 1, value) for tag, value in values.items()] + list(more))
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + bytes(5000)


def deep_tiff(
    width: int, height: int, bits: int = 16, strips: tuple[int, int, int] = (212, 8404, 16_596), **tags: int
) -> bytes:
    """A TIFF of RGB with so many bits a channel, which is one strip or, by `t284=2`, three."""
    values = {"t256": width, "t257": height, "t262": 2, "t277": 3, "t278": height, "t279": 8192} | tags
    planes = ((273, 4, 3, 5000),) if tags.get("t284") == 2 else ()
    data = bytearray(tiff(more=((258, 3, 3, 5012), *planes), **values) + bytes(30_000))
    data[5000:5018] = struct.pack("<3I3H", *strips, bits, bits, bits)
    return bytes(data)


def tiff_behind(start: bytes) -> bytes:
    """The same with four bytes of something else between the header and the directory."""
    return b"II*\0" + struct.pack("<I4s4x", 16, start) + tiff()[8:]


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP that is compressed by run lengths."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def masked_bmp(
    width: int, height: int, bits: int, masks: tuple[int, ...], pixels: bytes, *, header: int = 56, kind: int = 3
) -> bytes:
    """A BMP whose masks say which bits of a pixel are red, green, blue and alpha."""
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, kind, len(pixels), 0, 0, 0, 0)
    head = (info + struct.pack("<4I", *masks)).ljust(header, b"\0")
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + head + pixels


def heic_claiming(width: int, height: int, coded: tuple[int, int] = (64, 64)) -> bytes:
    """A HEIC whose `ispe` boxes claim another size."""
    return _restated(encoded(Image.new("RGB", coded), "HEIF"), width, height)


EMPTY_CHUNK = png_chunk(b"IDAT", b"")

BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 2.5 gigapixels": lambda: png(50_000, 50_000, body=zlib.compress(bytes(1000))),
    "png of 101 megapixels in 100 kB": lambda: png(10_100, 10_000, body=zlib.compress(bytes(30_310_000), 9)),
    "png of 49 megapixels with none of them": lambda: png(7000, 7000, body=zlib.compress(bytes(1000))),
    "png of 49 megapixels with nine tenths of them": lambda: png(
        7000, 7000, body=zlib.compress(bytes(6300 * 21_001), 9)),
    "png of 300,000 texts": lambda: small_png(*[(b"tEXt", b"a\0b")] * 300_000),
    "png of 400,000 empty chunks": lambda: png(16, 16)[:-12] + EMPTY_CHUNK * 400_000 + small_png()[-12:],
    "png text bomb": lambda: small_png(*[(b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))] * 200),
    "webp animation of 49 megapixels in 200 bytes": webp_animation_bomb,
    "webp of 400,000 frames": lambda: webp_with(frames=400_000),
    "webp of 4 million chunks": lambda: webp_with(b"abcd\0\0\0\0" * 4_000_000),
    "jpeg of 4 gigapixels": lambda: jpeg_claiming(65_535, 65_535),
    "jpeg of 49 megapixels in 600 bytes": lambda: jpeg_claiming(7000, 7000),
    "jpeg of 1000 scans": lambda: jpeg_with_scans(1000),
    "jpeg of a million comments": lambda: jpeg_with(b"\xff\xfe\0\2" * 1_200_000),
    "jpeg of 14 MB of EXIF": lambda: jpeg_with(
        (b"\xff\xe1" + struct.pack(">H", 65_000) + b"Exif\0\0MM\0*\0\0\0\x08\0\1" + bytes(64_982)) * 220),
    "jpeg of 200,000 quantization tables": lambda: jpeg_with(
        (b"\xff\xdb" + struct.pack(">H", 65_002) + (b"\0" + b"\1" * 64) * 1000) * 200),
    "jpeg of five million fill bytes": lambda: jpeg_with(b"\xff" * 5_000_000),
    "jpeg of 3 megapixels that is cut short": lambda: encoded(
        Image.new("RGB", (2000, 1500), (200, 120, 30)), "JPEG")[:-40],
    "gif of 4 gigapixels": lambda: gif_claiming(65_535, 65_535),
    "gif of a pixel on 49 megapixels": lambda: gif_claiming(7000, 7000).replace(
        b"," + struct.pack("<HHHH", 0, 0, 7000, 7000), b"," + struct.pack("<HHHH", 0, 0, 1, 1)),
    "gif of a million comments": lambda: gif_with(b"!\xfe\1a\0" * 1_000_000),
    "tiff of 1 gigapixel": lambda: tiff_claiming(32_000, 32_000),
    "tiff strip beyond the file": lambda: tiff(t273=0xFFFFFFF0, t279=0xFFFFFFFF),
    "tiff of 49 megapixels with none of them": lambda: tiff(t256=7000, t257=7000, t278=7000),
    "tiff strips of no rows": lambda: tiff(t278=0),
    "tiff of 49 megapixels in deep planes with none of them": lambda: deep_tiff(7000, 7000, t284=2),
    "tiff of 49 megapixels of floats with none of them": lambda: deep_tiff(7000, 7000, bits=32, t339=3),
    "tiff tiles of 4 gigapixels": lambda: tiff(t259=5, t322=65_520, t323=65_520, t324=200, t325=4096),
    "tiff of 65,535 channels": lambda: tiff(t277=65_535),
    "tiff of 1.8 million strips": lambda: tiff(
        t256=1, t257=29_999, t278=1, more=((320, 4, 900_000, 200), (321, 4, 900_000, 200))) + bytes(4_000_000),
    "tiff of 1,900,000 bit depths": lambda: tiff(more=((258, 3, 1_900_000, 200),)) + bytes(4_000_000),
    "tiff of 49 megapixels of LZW with none of them": lambda: tiff(
        t256=7000, t257=7000, t278=7000, t259=5, t277=3, t262=2),
    "jpeg of 380,000 blocks of Photoshop's": lambda: jpeg_with(
        (b"\xff\xed" + struct.pack(">H", 64_816) + b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5400) * 70),
    "tiff of 65,000 tags": lambda: tiff(more=tuple((tag, 4, 1, 1) for tag in range(500, 65_500))),
    "tiff in an unknown compression": lambda: tiff(t259=999),
    "avif of 900 megapixels": lambda: avif_claiming(30_000, 30_000),
    "avif of 49 megapixels that is coded in 16x16": lambda: avif_claiming(7000, 7000),
    "avif film of 49 megapixels that is coded in 16x16": lambda: avif_film_claiming(7000, 7000),
    "heic of 900 megapixels": lambda: heic_claiming(30_000, 30_000),
    "heic of 49 megapixels with none of them": lambda: heic_claiming(7000, 7000),
    "heic of 64x64 that is coded in 4 megapixels": lambda: heic_claiming(64, 64, coded=(2000, 2000)),
    "bmp of 4 gigapixels": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 65_535, 65_535, 1, 24,
                                                        0, 0, 0, 0, 0, 0) + bytes(16),
    "bmp of 49 megapixels with none of them": lambda: bmp_of_runs(7000, 7000, b"\0\1"),
    "bmp of 49 megapixels with one row of them": lambda: masked_bmp(7000, 7000, 32, (0xFF, 0xFF00, 0xFF0000, 0),
                                                                    bytes(28_000)),
}  # fmt: skip
ODD: dict[str, Callable[[], bytes]] = {
    "avif of 16x16 that is coded in 16 megapixels": lambda: avif_claiming(16, 16, coded=(4000, 4000)),
    "avif of 17x17 with transparency that is coded in 1 megapixel": lambda: avif_claiming(
        17, 17, coded=(1000, 1000), mode="RGBA"),
    "avif of two million empty parts": lambda: avif_with(b"\x12\0" * 2_000_000),
    "avif of 500,000 empty boxes": lambda: avif_with(b"") + b"\0\0\0\x08free" * 500_000,
    "gif of 100,000 frames": lambda: gif_with(frames=100_000),
    "png profile bomb": lambda: profile_of(bytes(100_000_000)),
    "png profile of 3,000 steps": lambda: profile_of(display_p3(steps=3000)),
    "png with an orientation of 300,000 fractions": lambda: orientation_of(300_000),
    "tiff tag of 2 gigabytes": lambda: tiff(more=((700, 1, 0x7FFFFFFF, 100),)),
    "tiff directory that follows itself": lambda: tiff()[:118] + struct.pack("<I", 8) + bytes(5000),
    "jpeg with 76 parts of a profile": lambda: jpeg_with(b"".join(
        b"\xff\xe2" + struct.pack(">H", 65_016) + b"ICC_PROFILE\0" + bytes([part, 76]) + bytes(65_000)
        for part in range(1, 77))),
}  # fmt: skip
"""What may be read, if it costs no more than a bomb may."""


def _peak() -> int:
    """Highest resident memory so far, bytes (VmHWM: `ru_maxrss` survives exec and counts the parent)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print, as JSON by name: seconds of CPU to sniff and to look at it, bytes above base, the errors."""
    from imgpipe_orchestration.errors import ImgpipeError
    from imgpipe_orchestration.imaging.measuring import look
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    for kind in ("PNG", "TIFF", "GIF", "WEBP", "AVIF"):  # each reader loads its library at first use
        look(encoded(Image.new("RGB", (64, 64)), kind))
    costs = {}
    for name, make in (BOMBS | ODD).items():
        data, errors = make(), []
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, clock = _peak(), time.process_time()
        for work in (sniff, look):
            try:
                work(data)
            except ImgpipeError as error:
                errors.append(f"{type(error).__name__}: {error}")
        costs[name] = {"cpu": time.process_time() - clock, "bytes": _peak() - before, "errors": errors}
    print(json.dumps(costs))  # noqa: T201


if __name__ == "__main__":
    main()
