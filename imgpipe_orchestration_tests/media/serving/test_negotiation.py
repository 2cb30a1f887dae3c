"""A conformance table for Accept (RFC 9110, sections 5.3.1, 12.4.2 and 12.5.1)."""

import time

import pytest

from imgpipe_orchestration.media.serving import hot
from imgpipe_orchestration.media.serving.decision import choose, read

ALL = ("avif", "webp", "jpeg")
ALPHA = ("avif", "webp", "png")

TABLE = [
    # accept, available, expected
    (None, ALL, "jpeg"),
    ("", ALL, "jpeg"),
    ("*/*", ALL, "jpeg"),
    ("image/*", ALL, "jpeg"),
    ("*/*", ALPHA, "png"),
    ("text/html", ALL, "jpeg"),
    ("text/html", ALPHA, "png"),
    ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", ALL, "avif"),
    ("image/webp,*/*", ALL, "webp"),
    ("image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5", ALL, "jpeg"),
    ("image/avif;q=0,image/webp,*/*", ALL, "webp"),
    ("image/avif;q=0.5,image/webp", ALL, "webp"),
    ("image/avif;q=0.5,image/webp;q=0.9,image/jpeg", ALL, "jpeg"),
    ("image/webp;q=0.9,image/avif;q=0.9", ALL, "avif"),
    ("image/avif;q=0,image/webp;q=0,image/jpeg;q=0", ALL, "jpeg"),
    ("image/*;q=0,image/webp", ALL, "webp"),
    ("*/*;q=0", ALL, "jpeg"),
    ("image/jpeg;q=0,*/*", ALL, "webp"),
    ("image/jpeg;q=0,image/*;q=0.1", ("avif", "jpeg"), "avif"),
    ("image/jpeg;q=0,image/webp;q=0,*/*", ALL, "avif"),
    ("image/jpeg;q=0,image/*;q=0,*/*", ALL, "jpeg"),
    ("image/png;q=0,*/*", ALPHA, "webp"),
    ("IMAGE/AVIF", ALL, "avif"),
    (" image/avif ; q=1.0 , */* ; q=0.1 ", ALL, "avif"),
    ("image/avif;Q=0.2,image/webp;q=0.3", ALL, "webp"),
    ("image/avif;q=1.000", ALL, "avif"),
    ("image/avif;v=b3;q=0.9", ALL, "avif"),
    ("image/avif;q=banana,image/webp;q=0.1", ALL, "webp"),
    ("image/avif;q=2,image/webp;q=0.1", ALL, "webp"),
    ("image/avif;q=-1,image/webp;q=0.1", ALL, "webp"),
    ("image/avif;q=,image/webp;q=0.1", ALL, "webp"),
    ("image/avif;q=NaN,image/webp;q=0.1", ALL, "webp"),
    (",,;;,image/,/webp,image,*/webp,image/webp", ALL, "webp"),
    ("image/avif", ("jpeg",), "jpeg"),
    ('image/avif;x="a,b";q=0,image/webp;q=0.1', ALL, "webp"),
    ('image/avif;x="a;q=1\\",";q=0,image/webp;q=0.1', ALL, "webp"),
    ('image/webp,image/avif;x="never closed,image/avif', ALL, "avif"),
    ("image/avif;q=0.1,image/avif;q=0.9,image/webp;q=0.5", ALL, "avif"),
    ("image/webp", ALPHA, "webp"),
    ("image/jpeg", ALPHA, "png"),
    ("\x00\xff garbage", ALL, "jpeg"),
]


@pytest.mark.parametrize(("accept", "available", "expected"), TABLE, ids=[repr(row[0])[:60] + row[2] for row in TABLE])
def test_the_table(accept: str | None, available: tuple[str, ...], expected: str) -> None:
    assert choose(accept, available)[0] == expected


@pytest.mark.parametrize("letters", ['"', '\\"', '"\\', ",", ";", "image/webp;q=0,", 'a/b;c="'])
def test_a_header_as_long_as_the_server_takes_costs_little(letters: str) -> None:
    started = time.thread_time()
    choose(letters * (65_536 // len(letters)), ALL)
    assert time.thread_time() - started < 0.2


@pytest.mark.parametrize("parameter", ["version", "signature"])
def test_what_is_long_in_a_url_is_not_kept(parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "decide", lambda *_: None)
    before = hot._remembered.cache_info().currsize
    hot.Manifest(False, False, {}, "").decide(read(f"{parameter}={'x' * 513}".encode()), None)
    assert hot._remembered.cache_info().currsize == before
