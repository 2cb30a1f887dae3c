"""Log lines: as text or JSON, with what must not be read by others taken out."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}

_SECRETS = (
    # The signature part of SAS and presigned URLs; tokens and keys in query strings.
    (
        re.compile(r"(?i)([?&](?:sig|signature|x-amz-signature|x-amz-security-token|token|key|api_key)=)[^&\s\"']+"),
        r"\1***",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), r"\1 ***"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-***"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"), "***"),
    # user:password@host in any URL
    (re.compile(r"(?i)(://[^:/@\s]+:)[^@/\s]+@"), r"\1***@"),
    (
        re.compile(
            r"(?i)(\"?(?:api[_-]?key|secret|password|external_api_key|authorization)\"?\s*[:=]\s*\"?)[^\s\",}]{4,}"
        ),
        r"\1***",
    ),
)


def redact(line: str) -> str:
    """The line without keys, bearer tokens, passwords in URLs and the signatures of SAS and presigned URLs."""
    for pattern, replacement in _SECRETS:
        line = pattern.sub(replacement, line)
    return line


def logger(name: str) -> logging.Logger:
    """The logger of a module; what it says goes where `configure` sent it."""
    return logging.getLogger(name)


def configure(*, style: Literal["text", "json"] = "text", level: str = "INFO") -> None:
    """Send all log lines of this process to standard error, redacted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


class TextFormatter(logging.Formatter):
    """`2026-01-20 10:00:00 - name - INFO - message  key=value ...`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s - %(name)s - %(levelname)s - %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        return redact(super().format(record) + extras)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, whatever was passed as `extra`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False))
