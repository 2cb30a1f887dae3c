"""Files that strangers might send: bombs of each kind. Run as a program it measures what each costs to refuse."""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image


def png(width: int, height: int, *chunks: tuple[bytes, bytes], body: bytes = b"") -> bytes:
    """A PNG header that claims 8-bit RGB of any size, with any chunks before its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    middle = b"".join(chunk(kind, data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + middle + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def webp_animation_bomb() -> bytes:
    """Under 200 bytes that claim 7000x7000 pixels in two frames."""
    file = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = bytearray(file.getvalue())
    at = data.index(b"VP8X") + 12
    data[at : at + 6] = (6999).to_bytes(3, "little") * 2
    return bytes(data)


def jpeg_with_scans(count: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    file = io.BytesIO()
    Image.effect_noise((600, 600), 60).convert("RGB").save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff_claiming(width: int, height: int) -> bytes:
    """A TIFF of one strip with an absurd size."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "TIFF")
    data = bytearray(file.getvalue())
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


def avif_claiming(width: int, height: int) -> bytes:
    """An AVIF whose `ispe` box claims another size."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "AVIF")
    data = bytearray(file.getvalue())
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def icc_bomb() -> bytes:
    """A colour profile that inflates to 100 MB."""
    return png(16, 16, (b"iCCP", b"x\0\0" + zlib.compress(bytes(100_000_000), 9)), body=zlib.compress(bytes(16 * 49)))


def text_bomb() -> bytes:
    """Texts that inflate to a megabyte each."""
    text = (b"zTXt", b"x\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(16, 16, *[text] * 200, body=zlib.compress(bytes(16 * 49)))


BOMBS: dict[str, Callable[[], bytes]] = {
    "png of 2.5 gigapixels": lambda: png(50_000, 50_000, body=zlib.compress(bytes(1000))),
    "png of 100 megapixels in 100 kB": lambda: png(10_000, 10_000, body=zlib.compress(bytes(30_010_000), 9)),
    "webp animation of 49 megapixels in 200 bytes": webp_animation_bomb,
    "jpeg of 4 gigapixels": lambda: jpeg_claiming(65_000, 65_000),
    "jpeg of 1000 scans": lambda: jpeg_with_scans(1000),
    "gif of 4 gigapixels": lambda: gif_claiming(65_535, 65_535),
    "tiff of 1 gigapixel": lambda: tiff_claiming(32_000, 32_000),
    "avif of 900 megapixels": lambda: avif_claiming(30_000, 30_000),
    "bmp of 4 gigapixels": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 70, 0, 0, 54, 40, 65_535, 65_535, 1, 24,
                                                        0, 0, 0, 0, 0, 0) + bytes(16),
    "png text bomb": text_bomb,
    "png profile bomb": icc_bomb,
}  # fmt: skip


def _peak() -> int:
    """Highest resident memory so far, bytes (VmHWM: `ru_maxrss` survives exec and counts the parent)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print, as JSON, what refusing the file given costs: seconds of CPU, bytes above base, the error."""
    from imgpipe_orchestration.errors import ImgpipeError
    from imgpipe_orchestration.imaging.recipe import MEDIA
    from imgpipe_orchestration.imaging.render import render
    from imgpipe_orchestration.imaging.sniff import sniff

    harmless = io.BytesIO()
    Image.new("RGB", (64, 64)).save(harmless, "PNG")
    render(harmless.getvalue(), MEDIA)
    data = Path(sys.argv[1]).read_bytes()
    before, clock = _peak(), time.process_time()
    errors = []
    for work in (sniff, lambda file: render(file, MEDIA)):
        try:
            work(data)
        except ImgpipeError as error:
            errors.append(f"{type(error).__name__}: {error}")
    print(json.dumps({"cpu": time.process_time() - clock, "bytes": _peak() - before, "errors": errors}))  # noqa: T201


if __name__ == "__main__":
    main()
