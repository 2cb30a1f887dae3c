"""The embedded object store: `rclone serve s3` over a plain folder, one sub-folder a bucket.

docs/dependencies.md lists its differences from AWS, on none of which anything relies. It has no anonymous reads, so
`PublicObjects` serves the public objects, read-only, over plain HTTP.
"""

import os
import shutil
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import HttpPart
from imgpipe_orchestration.errors import SettingsError


class S3(HttpPart):
    """An S3 endpoint over `folder`, for path-style requests signed with version 4. Pages of `origin` may send files."""

    name = "s3"
    health_path = "/"

    def __init__(
        self,
        folder: Path,
        port: int,
        *,
        access_key: str,
        secret_key: str,
        origin: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        # Not on the command line, which every user of the machine can read.
        key = {"RCLONE_AUTH_KEY": f'"{access_key},{secret_key}"'}
        environ = {**(os.environ if environ is None else environ), **key}
        super().__init__(folder, port, environ=environ)
        self.access_key = access_key
        self.secret_key = secret_key
        self._origin = origin

    def command(self) -> list[str]:
        address = f"{LOOPBACK}:{self.port}"
        # Without checksums and ETags, which rclone computes over the whole file before it sends the first byte: more
        # than half of the time of a large object's first read.
        less = ["--poll-interval", "0", "--no-checksum", "--etag-hash", ""]
        # rclone takes one origin only. Not "*", because the development keys are public.
        pages = ["--allow-origin", self._origin] if self._origin else []
        return [*_rclone(), "serve", "s3", "--addr", address, *less, *pages, str(self.folder)]


class PublicObjects(HttpPart):
    """The objects of an `S3` folder that match a pattern of `{bucket}/{key}`, over plain HTTP, read-only."""

    name = "s3-public"
    health_path = "/"

    def __init__(
        self, folder: Path, port: int, *, public: Iterable[str], environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, port, environ=environ)
        self._public = tuple(public)

    def command(self) -> list[str]:
        only = [word for pattern in self._public for word in ("--include", f"/{pattern}")]
        address = f"{LOOPBACK}:{self.port}"
        # rclone's cache of listings hides new objects for five minutes by default.
        cache = ["--dir-cache-time", "1s", "--poll-interval", "0"]
        return [*_rclone(), "serve", "http", "--addr", address, "--read-only", *cache, *only, str(self.folder)]


def _rclone() -> list[str]:
    """The rclone of our environment, or of the machine, without a configuration file."""
    found = shutil.which("rclone", path=sysconfig.get_path("scripts")) or shutil.which("rclone")
    if found is None:
        raise SettingsError("no rclone found: install the `embedded` extra or set S3_ENDPOINT")
    return [found, "--config", ""]
