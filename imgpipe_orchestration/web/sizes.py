"""Sizes of files in words."""

from __future__ import annotations


def size_text(count: int) -> str:
    """Bytes: `812 bytes`, `42 KB`, `3.1 MB`, of 1024 each."""
    if count < 1024:
        return "1 byte" if count == 1 else f"{count} bytes"
    if count < 1024 * 1024:
        return f"{count / 1024:.0f} KB"
    return f"{count / 1024 / 1024:.1f}".removesuffix(".0") + " MB"
