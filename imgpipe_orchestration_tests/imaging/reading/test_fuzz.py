"""Open-and-normalise on files that hypothesis takes apart and puts together again: a picture or a plain error."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging import hostile
from imgpipe_orchestration_tests.imaging.corpus import picture
from imgpipe_orchestration_tests.imaging.reading.test_hostile import KINDS

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_RUNS", "1500")),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
WHOLE = [make(picture(40, 30)) for make in KINDS.values()]
STARTS = [data[:16] for data in WHOLE]
TAGS = [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 338, 339]
CHUNKS = [b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"cICP", b"gAMA", b"cHRM", b"acTL", b"fcTL", b"zTXt", b"iTXt", b"sRGB"]

cut = st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.binary(max_size=24))


def _opened(data: bytes) -> None:
    for work in (lambda: sniff(data), lambda: prepare(data, MEDIA)):
        try:
            work()
        except ImgpipeError as error:
            assert error.public


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits._allowed, "pixels", 1_000_000)


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Pillow says what it thinks of such files


@FUZZ
@given(st.sampled_from(WHOLE), st.lists(cut, min_size=1, max_size=4))
def test_a_file_that_is_cut_and_patched(data: bytes, cuts: list[tuple[float, float, bytes]]) -> None:
    """Each cut replaces a stretch of the file, given as fractions of its length, by other bytes."""
    for start, length, other in cuts:
        at = int(start * len(data))
        data = data[:at] + other + data[at + int(length * len(data)) :]
    _opened(data)


@FUZZ
@given(st.sampled_from(STARTS), st.binary(max_size=400))
def test_a_signature_before_anything_at_all(start: bytes, rest: bytes) -> None:
    _opened(start + rest)


@FUZZ
@given(st.dictionaries(st.sampled_from(TAGS), st.one_of(st.integers(0, 9), st.integers(0, 0xFFFFFFFF))))
def test_a_tiff_with_tags_of_any_value(tags: dict[int, int]) -> None:
    _opened(hostile.tiff(**{f"t{tag}": value for tag, value in tags.items()}))


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(CHUNKS), st.binary(max_size=60)), max_size=6))
def test_a_png_with_chunks_of_any_content(chunks: list[tuple[bytes, bytes]]) -> None:
    _opened(hostile.png(8, 8, *chunks, body=b"x\x9c"))
