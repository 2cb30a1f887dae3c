"""Colour profiles that the tests write themselves, byte by byte (ICC.1:2010)."""

import struct

import numpy as np

P3 = np.array([[0.515102, 0.291965, 0.157153], [0.241182, 0.692236, 0.066582], [-0.001049, 0.041882, 0.784378]])
"""Display P3 to XYZ under D50, columns red, green, blue (as in Apple's own profile)."""


def display_p3(gamma: float = 2.2, steps: int = 0) -> bytes:
    """An RGB profile with P3's primaries and a plain gamma; with steps, also as a list of so many that do nothing."""
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"desc": _text("wide"), b"cprt": _plain("none")}
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), P3.T, strict=True):
        tags[name] = _xyz(*column)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = _curve(gamma)
    if not steps:
        return _profile(b"mntr", b"RGB ", b"XYZ ", tags)
    nothing = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    where = struct.pack(">II", 16 + 8 * steps, len(nothing)) * steps
    tags[b"D2B0"] = tags[b"D2B1"] = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, steps) + where + nothing
    profile = _profile(b"mntr", b"RGB ", b"XYZ ", tags)
    return profile[:8] + b"\4\x40" + profile[10:]


def grey_gamma(gamma: float) -> bytes:
    """A grey profile."""
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"desc": _text("grey"), b"cprt": _plain("none"), b"kTRC": _curve(gamma)}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def cmyk_to(lab_of: object) -> bytes:
    """A CMYK profile whose 16 corners have the Lab colours that `lab_of(c, m, y, k)` says."""
    table = b""
    for corner in range(16):
        c, m, y, k = (corner >> shift & 1 for shift in (3, 2, 1, 0))
        lightness, a, b = lab_of(c, m, y, k)  # type: ignore[operator]
        table += bytes([round(lightness * 2.55), round(a + 128), round(b + 128)])
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + table + identity * 3
    tags = {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"desc": _text("ink"), b"cprt": _plain("none"), b"A2B0": lut}
    return _profile(b"prtr", b"CMYK", b"Lab ", tags)


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in (x, y, z)))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def _text(text: str) -> bytes:
    return b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text.encode() + b"\0" + bytes(4 + 4 + 2 + 1 + 67)


def _plain(text: str) -> bytes:
    return b"text\0\0\0\0" + text.encode() + b"\0"


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = bytes(4) + b"none" + bytes([2, 0x40, 0, 0]) + kind + space + connection + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    whole = head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]
