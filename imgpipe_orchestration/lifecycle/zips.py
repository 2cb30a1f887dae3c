"""ZIPs that are written while they are sent, one object in memory at a time."""

from collections.abc import Iterable, Iterator
from zipfile import ZIP_DEFLATED, ZIP_STORED

from zipstream import ZipStream

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.storage.objects import Bucket


class Archive:
    """A ZIP of texts and objects. An object that cannot be read becomes a line in `missing.txt`, and does not break the
    download. Pictures are compressed as they are."""

    def __init__(self) -> None:
        self._zip = ZipStream(compress_type=ZIP_STORED)
        self._missing: list[str] = []

    def text(self, name: str, data: Iterable[bytes]) -> Iterator[bytes]:
        """A file that may be of any length."""
        self._zip.add(data, name, compress_type=ZIP_DEFLATED)
        yield from self._zip.all_files()

    def object(self, name: str, bucket: Bucket, key: str, size: int | None = None) -> Iterator[bytes]:
        """An object; `size` is how many bytes were stored, if that is known."""
        try:
            data = bucket.get(key, size=size)
        except ImgpipeError as error:
            self._missing.append(f"{key}: {error.public}\n")
            return
        self._zip.add(data, name)
        yield from self._zip.all_files()

    def end(self) -> Iterator[bytes]:
        """What is missing, and the directory."""
        if self._missing:
            self._zip.add("".join(self._missing), "missing.txt")
        yield from self._zip.finalize()


def pictures(
    bucket: Bucket, named: Iterable[tuple[str, str, int | None]], texts: dict[str, bytes] | None = None
) -> Iterator[bytes]:
    """A ZIP of some texts, and of objects of a bucket (name in the ZIP, key, size)."""
    archive = Archive()
    for name, data in (texts or {}).items():
        yield from archive.text(name, [data])
    for name, key, size in named:
        yield from archive.object(name, bucket, key, size)
    yield from archive.end()
