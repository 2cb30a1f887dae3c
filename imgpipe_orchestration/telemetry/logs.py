"""Logging: one event a line, as text or JSON, redacted."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import WatchedFileHandler
from types import MappingProxyType
from typing import Any, Literal

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.redaction import cleaned, redact

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}

FIELD_LENGTH = 16_000
"""Characters kept of a message, a traceback or an extra; an exception may quote a whole image."""

_bound: ContextVar[Mapping[str, Any]] = ContextVar("bound", default=MappingProxyType({}))  # fields of every line here

# With C1, because terminals take \x9b for ESC [. NEL (\x85, in C1), U+2028 and U+2029 are line breaks too (UAX 14).
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}
_CONTROL |= {10: "\\n", 13: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def one_line(text: str) -> str:
    """The text with line breaks and control characters escaped: it moves no cursor and writes no second line."""
    return text.translate(_CONTROL)


def logger(name: str) -> logging.Logger:
    """The logger of a module."""
    return logging.getLogger(name)


def configure(
    *, style: Literal["text", "json"] = "text", level: str = "INFO", file: str = "", shown: str = "NOTSET"
) -> None:
    """Send all log lines of this process, redacted, to standard error, and to `file` (LOG_FILE) where there is one.

    Args:
        shown: least level for standard error. Commands raise it, because they print their results themselves.

    Raises:
        SettingsError: the file cannot be opened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if file:
        try:
            handlers.append(LogFile(file, encoding="utf-8", errors="backslashreplace"))
        except OSError as error:
            raise SettingsError(f"LOG_FILE cannot be opened: {error}") from error
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handlers[0].setLevel(shown)
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(level.upper())
    logging.captureWarnings(True)  # libraries' warnings would be bare text


class LogFile(WatchedFileHandler):
    """LOG_FILE. A WatchedFileHandler, so that logrotate can move it.

    When it cannot be written (full disk, missing folder), its lines are on standard error only, where all are. The base
    class prints a traceback for each, or raises when it reopens the file.
    """

    def _open(self) -> TextIOWrapper:
        """A new one is for its owner, and for its group to read: lines may name people and their pictures."""
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return os.fdopen(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add `fields` (run, item, tenant ...) to every line that this thread or task logs within the block.

    Empty values are left out; a line's own fields take precedence.
    """
    token = _bound.set({**_bound.get(), **{key: value for key, value in fields.items() if value not in (None, "")}})
    try:
        yield
    finally:
        _bound.reset(token)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    said = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    trace = tracing.current_id()
    every = {**({"trace": trace} if trace else {}), **_bound.get(), **said}
    return {key: cleaned(value, key) for key, value in every.items()}


def _bounded(text: str, limit: int = FIELD_LENGTH) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more characters)"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Traceback and stack of a record, redacted; empty when it has none. A long one is cut at its beginning."""
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    parts += [formatter.formatStack(record.stack_info)] if record.stack_info else []
    text = "\n".join(parts)
    if len(text) > FIELD_LENGTH:
        text = f"({len(text) - FIELD_LENGTH} characters before) ...{text[-FIELD_LENGTH:]}"
    return redact(text)


class TextFormatter(logging.Formatter):
    """`2026-01-20 10:00:00 - name - INFO - message  key=value ...`

    Line breaks and control characters in a message are escaped, so that e.g. a file name cannot forge a log line.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record, self.datefmt)} - {record.name} - {record.levelname} - "
        extras = "".join(f" {key}={_bounded(str(value))}" for key, value in _extras(record).items())
        line = head + one_line(redact(_bounded(record.getMessage())) + extras)
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, whatever was passed as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(_bounded(record.getMessage())),
            **{key: _bounded(value) if isinstance(value, str) else value for key, value in _extras(record).items()},
        }
        trace = _trace(self, record)
        if trace:
            line["traceback"] = trace
        # File names may contain lone surrogates, which UTF-8 cannot encode.
        return json.dumps(line, default=str, ensure_ascii=False).encode(errors="replace").decode()
