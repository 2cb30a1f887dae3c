"""The body of an answer, unpacked as it comes."""

from __future__ import annotations

from collections.abc import Iterator

import urllib3
from urllib3.exceptions import IncompleteRead
from urllib3.response import GzipDecoderState

_CHUNK = 64 * 1024


def unpacked(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The body piece by piece, without its Content-Encoding.

    Raises:
        HTTPError: of urllib3, as its `read1`. Also where a compressed body breaks off and neither a length nor chunks
            tell: urllib3 then yields what there is without a word.
    """
    while part := response.read1(_CHUNK, decode_content=True):
        yield part
    if response.tell() and not _is_at_its_end(response):
        raise IncompleteRead(response.tell(), 0)


def _is_at_its_end(response: urllib3.BaseHTTPResponse) -> bool:
    """Whether the decompressors have seen the ends of their streams, as far as they tell: Brotli's, which urllib3 uses
    where it is installed, does not. Rubbish behind an end does not matter."""
    outer = response._decoder
    decoders = getattr(outer, "_decoders", [outer] if outer else [])  # several for `Content-Encoding: gzip, gzip`
    return all(
        getattr(one._obj, "eof", True) or getattr(one, "_state", None) == GzipDecoderState.SWALLOW_DATA
        for one in decoders
    )
