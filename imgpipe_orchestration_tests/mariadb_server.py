"""A MariaDB from the distribution's packages, for the contract of `pending_images`."""

from __future__ import annotations

import os
import shutil
import subprocess

import pymysql

from imgpipe_orchestration.devstack.ports import LOOPBACK
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration_tests.lacking import lacking

PENDING_IMAGES = """
    CREATE TABLE pending_images (
      id BIGINT AUTO_INCREMENT PRIMARY KEY,
      user_id BIGINT NOT NULL,
      image_path VARCHAR(255) NOT NULL,
      original_name VARCHAR(255),
      mime_type VARCHAR(100),
      permanent_url VARCHAR(500),
      thumbnail_url VARCHAR(500),
      status ENUM('pending','processed','complete','failed') DEFAULT 'pending',
      created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
      updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP
    )
"""
"""The documents' own DDL, to the letter."""


class MariaDB(Part):
    """`mariadbd` over a folder of its own, in a time zone that is not ours."""

    name = "mariadb"

    @property
    def url(self) -> str:
        return f"mysql://root@{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        super().prepare()
        if not (self.folder / "mysql").exists():
            install = ["mariadb-install-db", "--no-defaults", f"--datadir={self.folder}", "--skip-test-db"]
            words = [*install, "--auth-root-authentication-method=normal", *self._user()]
            subprocess.run(words, check=True, capture_output=True)

    def command(self) -> list[str]:
        server = _found("mariadbd")
        assert server is not None
        words = [server, "--no-defaults", f"--datadir={self.folder}", f"--bind-address={LOOPBACK}"]
        words += [f"--port={self.port}", f"--socket={self.folder.parent / 'mariadb.sock'}", *self._user()]
        # utf8mb4 is what the distribution configures; the bare default is still latin1.
        words.append("--character-set-server=utf8mb4")
        return [*words, "--default-time-zone=+05:30", "--innodb-flush-log-at-trx-commit=0"]

    def answers(self) -> bool:
        try:
            pymysql.connect(host=LOOPBACK, port=self.port, user="root", connect_timeout=2).close()
        except pymysql.err.OperationalError:
            return False
        return True

    def execute(self, *statements: str, database: str | None = None) -> None:
        with pymysql.connect(host=LOOPBACK, port=self.port, user="root", database=database, autocommit=True) as session:
            for statement in statements:
                session.cursor().execute(statement)

    def _user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


def require_mariadb() -> None:
    """Skip where there is no MariaDB; on CI its absence is a failure."""
    if _found("mariadbd") and _found("mariadb-install-db"):
        return
    lacking("mariadbd", "make test-servers")


def _found(command: str) -> str | None:
    return shutil.which(command, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
