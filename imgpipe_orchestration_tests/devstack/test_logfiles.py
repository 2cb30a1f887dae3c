"""Log files stay small while their writers hold them open."""

from __future__ import annotations

from pathlib import Path

from imgpipe_orchestration.devstack.logfiles import keep_small


def test_a_large_log_moves_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "part.log"
    with file.open("ab", buffering=0) as writer:
        writer.write(b"old line\n" * 100)
        keep_small(file, limit=500)
        writer.write(b"new line\n")
        keep_small(file, limit=500)
    assert file.read_bytes() == b"new line\n"
    assert (tmp_path / "part.log.1").read_bytes() == b"old line\n" * 100


def test_on_a_disk_without_room_a_large_log_stays_whole(tmp_path: Path) -> None:
    log = tmp_path / "part.log"
    log.write_text("x" * 200)
    (tmp_path / "part.log.1").symlink_to("/dev/full")
    keep_small(log, limit=100)
    assert log.read_text() == "x" * 200


def test_a_log_that_does_not_exist_yet_is_left_alone(tmp_path: Path) -> None:
    keep_small(tmp_path / "part.log")
    assert list(tmp_path.iterdir()) == []
