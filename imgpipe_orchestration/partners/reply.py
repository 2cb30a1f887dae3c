"""The answer of a partner, as it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any

from imgpipe_orchestration.errors import UnreadableAnswer
from imgpipe_orchestration.partners.json_text import decoded

ANSWER_LIMIT = 32 * 1024 * 1024
"""Largest accepted answer, bytes: well above an annotated image, well below what would exhaust memory."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A finished answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self, partner: str) -> Any:
        """The decoded body.

        Raises:
            UnreadableAnswer: not JSON.
        """
        try:
            return self._parsed()
        except (ValueError, LookupError) as error:
            # A web page usually is a proxy's login or a closed host, and not the partner's.
            what = "a web page instead of" if self.is_html else "something that is not" if self.content else "no"
            detail = self.content[:500].decode(errors="replace")
            raise UnreadableAnswer(f"{partner} answered {what} JSON", detail=detail) from error

    @property
    def is_html(self) -> bool:
        """Whether the body begins as a web page does, whatever the headers say."""
        head = self.content[:1000].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        return head.startswith((b"<!doctype html", b"<html", b"<!--"))

    def _parsed(self) -> Any:
        try:
            return decoded(self.content)
        except UnicodeDecodeError:
            # JSON should be UTF-8, but old servers write Latin-1 and declare it.
            declared = Message()
            declared["Content-Type"] = self.headers.get("Content-Type", "")
            return decoded(self.content.decode(declared.get_content_charset("utf-8")))


class AnswerTooLong(UnreadableAnswer):
    """The answer is larger than allowed."""

    title = "Answer too long"
