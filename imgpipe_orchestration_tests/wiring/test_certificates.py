"""A server whose certificate is of one's own authority is trusted by every library, whichever variable names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imgpipe_orchestration.devstack.ports import free_port, listening
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.wiring.services import CERTIFICATES, share_certificates
from imgpipe_orchestration_tests.parts import running

_KEEP_AN_OBJECT = """
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration.settings import load
bucket = Services(load()).media_bucket
bucket.ensure()
bucket.put("k", b"x", content_type="text/plain")
print(bucket.get("k"), [one.key for one in bucket.list()])
"""


def test_what_is_set_stays_and_what_is_not_follows_the_first_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CERTIFICATES:
        monkeypatch.setenv(name, "")
    share_certificates()
    assert [os.environ[name] for name in CERTIFICATES] == ["", "", ""]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/ours.pem")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/amazon.pem")
    share_certificates()
    assert [os.environ[name] for name in CERTIFICATES] == ["/ours.pem", "/ours.pem", "/amazon.pem"]


@pytest.mark.parametrize("named", [CERTIFICATES[0], None])
def test_objects_are_written_read_and_listed_over_tls(named: str | None, certificate: Path, tmp_path: Path) -> None:
    class Secured(S3):
        def command(self) -> list[str]:
            *words, folder = super().command()
            return [*words, "--cert", str(certificate), "--key", str(certificate), folder]

        def answers(self) -> bool:
            return listening(self.port)

    with running(Secured(tmp_path / "s3", free_port(), access_key="a-key", secret_key="a-secret")) as server:
        environ = {name: value for name, value in os.environ.items() if name not in CERTIFICATES}
        environ |= {
            "S3_ENDPOINT": f"https://localhost:{server.port}",
            "S3_ACCESS_KEY": server.access_key,
            "S3_SECRET_KEY": server.secret_key,
            **({named: str(certificate)} if named else {}),
        }
        words = [sys.executable, "-c", _KEEP_AN_OBJECT]
        done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    if named:
        assert done.stdout == "b'x' ['k']\n", done.stderr
    else:
        assert "CERTIFICATE_VERIFY_FAILED" in done.stderr
