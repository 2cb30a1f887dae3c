"""The parts in production, each by the very command line of its unit, with its environment and nothing else's."""

import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
import requests

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration.storage.objects import ObjectStore
from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import picture
from imgpipe_orchestration_tests.parts import ensure_database, running
from imgpipe_orchestration_tests.servers import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("production")]

BIN = Path(sys.executable).parent
DEPLOY = Path(__file__).parents[1] / "deploy"
PARTS = ("imgpipe-gateway", "imgpipe-code", "imgpipe-webserver", "imgpipe-daemon")
QUEUES = ("cpu", "network", "paid")
BUCKETS = ("media", "listing-images", "avatar-images", "vision-reports", "dagster-logs")


@dataclass
class Unit:
    """What systemd would start."""

    name: str
    before: list[list[str]]
    command: list[str]
    environment: dict[str, str]


@dataclass
class Site:
    """A machine as deploy/README.md has it made, /etc/imgpipe and /var/lib/imgpipe, with its servers elsewhere."""

    etc: Path
    lib: Path
    keys: dict[str, str]
    gateway: str
    webserver: str
    ports: dict[str, str]

    def unit(self, name: str, instance: str = "") -> Unit:
        """The unit's lines, at home in our folders, on free ports."""
        file = DEPLOY / "systemd" / (f"{name}@.service" if instance else f"{name}.service")
        written = self.at_home(file.read_text().replace("%i", instance))
        given = dict(re.findall(r"(\w+)=(\S+)", " ".join(re.findall(r"^Environment=(.*)$", written, re.MULTILINE))))
        before = [shlex.split(line.replace("$$", "$")) for line in re.findall(r"(?m)^ExecStartPre=(.*)$", written)]
        (command,) = re.findall(r"^ExecStart=(.*)$", written, re.MULTILINE)
        # As systemd does it, what EnvironmentFile holds wins over Environment.
        return Unit(instance or name, before, command.split(), {"PATH": "/usr/bin:/bin", **given, **self.keys})

    def at_home(self, written: str) -> str:
        places = {"/opt/imgpipe/bin": BIN, "/var/lib/imgpipe": self.lib, "/etc/imgpipe": self.etc}
        for place, ours in places.items():
            written = written.replace(place, str(ours))
        for port, ours in self.ports.items():
            written = written.replace(f"-p {port}", f"-p {ours}").replace(f"port: {port}", f"port: {ours}")
        return written

    @contextmanager
    def running(self, unit: Unit) -> Iterator[subprocess.Popen[bytes]]:
        for line in unit.before:
            subprocess.run(line, env=unit.environment, check=True)
        log = self.lib / f"{unit.name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                unit.command,
                cwd=self.lib,
                env=unit.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield process
            process.wait(60)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def ended(self, unit: Unit, *words: str) -> subprocess.CompletedProcess[str]:
        """The unit's command, or another one with its environment, run to its end."""
        return subprocess.run(
            words or unit.command, cwd=self.lib, env=unit.environment, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """An operator's `imgpipe ...` on that machine."""
        return self.ended(self.unit("imgpipe-migrate"), str(BIN / "imgpipe"), *words)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with open_folder() as folder, ExitStack() as elsewhere:
        rows = elsewhere.enter_context(running(Postgres(folder / "pg", free_port())))
        keys = {"access_key": "production-access", "secret_key": secrets.token_hex(16)}
        store = elsewhere.enter_context(running(S3(folder / "s3", free_port(), **keys)))
        mongo = elsewhere.enter_context(running(Mongo(folder / "mongo", free_port())))
        redis = elsewhere.enter_context(running(RedisServer(folder / "redis", free_port())))
        partners = elsewhere.enter_context(running(StandIns(folder / "partners", free_port())))
        objects = ObjectStore(endpoint=store.url, region="us-east-1", **keys)
        for bucket in BUCKETS:
            objects.bucket(bucket).ensure()
        etc, lib = folder / "etc", folder / "lib"
        for place in (etc, lib / "dagster"):
            place.mkdir(parents=True)
        gateway, webserver, code = (str(free_port()) for _ in range(3))
        url = f"http://{LOOPBACK}:{gateway}"
        example = re.findall(r"^([A-Z0-9_]+)=(.*)$", (DEPLOY / "example.env").read_text(), re.MULTILINE)
        filled = {name: value or secrets.token_hex(32) for name, value in example} | {
            "DATABASE_URL": ensure_database(rows, "imgpipe"),
            "DAGSTER_PG_URL": ensure_database(rows, "dagster").replace("postgresql://", "postgresql+psycopg2://"),
            "S3_ENDPOINT": store.url,
            "S3_ACCESS_KEY": keys["access_key"],
            "S3_SECRET_KEY": keys["secret_key"],
            "AWS_ACCESS_KEY_ID": keys["access_key"],
            "AWS_SECRET_ACCESS_KEY": keys["secret_key"],
            "MONGODB_URL": f"{mongo.url}/ichat",
            "CELERY_BROKER_URL": redis.url,
            "GATEWAY_PORT": gateway,
            "FLASK_PORT": gateway,
            "GATEWAY_URL": url,
            "PUBLIC_BASE_URL": url,
            "DAGSTER_URL": f"http://{LOOPBACK}:{webserver}",
            "OPENAI_BASE_URL": f"{partners.url}/openai/v1",
            "GOOGLE_VISION_API_KEY": "given",
            "GOOGLE_VISION_ENDPOINT": f"{partners.url}/google-vision",
            "FLOWISE_BASE_URL": f"{partners.url}/flowise",
            "ALLOWED_PRIVATE_HOSTS": f"{LOOPBACK}:{gateway}",
            "ALERT_WEBHOOK_URL": "",
        }
        (etc / "imgpipe.env").write_text("".join(f"{name}={value}\n" for name, value in filled.items()))
        made = Site(etc, lib, filled, url, f"http://{LOOPBACK}:{webserver}", {"3000": webserver, "4000": code})
        shutil.copy(DEPLOY / "dagster.yaml", etc / "dagster.yaml")
        (etc / "workspace.yaml").write_text(made.at_home((DEPLOY / "systemd" / "workspace.yaml").read_text()))
        yield made


@pytest.fixture(scope="module")
def migrated(site: Site) -> Site:
    unit = site.unit("imgpipe-migrate")
    for line in [*unit.before, unit.command]:
        done = site.ended(unit, *line)
        assert done.returncode == 0, done.stdout + done.stderr
    assert site.command("migrate", "--check").returncode == 0
    return site


def test_a_database_that_is_late_at_boot_is_waited_for_and_a_wrong_setting_is_not(site: Site) -> None:
    unit = site.unit("imgpipe-migrate")
    unit.command, unit.before = unit.before[-1], []
    unit.environment["DATABASE_URL"] = "postgresql://imgpipe@127.0.0.1:1/imgpipe"
    with site.running(unit) as process:
        log = site.lib / f"{unit.name}.log"
        wait_for(lambda: log.read_text().count("cannot be reached") >= 2, "another try")
        process.kill()
    unit.environment["DATABASE_URL"] = "nonsense"
    assert site.ended(unit).returncode == 2


@pytest.fixture(scope="module")
def up(migrated: Site) -> Iterator[Site]:
    """Every unit of imgpipe.target."""
    units = [migrated.unit(name) for name in PARTS] + [migrated.unit("imgpipe-worker", queue) for queue in QUEUES]
    with ExitStack() as running:
        processes = {unit.name: running.enter_context(migrated.running(unit)) for unit in units}

        def ready() -> bool:
            ended = [name for name, process in processes.items() if process.poll() is not None]
            assert not ended, (migrated.lib / f"{ended[0]}.log").read_text()[-3000:]
            return answers(f"{migrated.gateway}/health") and answers(f"{migrated.webserver}/server_info")

        wait_for(ready, "gateway and webserver")
        yield migrated
        assert [name for name, process in processes.items() if process.poll() is not None] == []
        for process in processes.values():
            process.send_signal(signal.SIGTERM)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def user(site: Site, number: int) -> dict[str, str]:
    claims = {"sub": str(number), "exp": int(time.time()) + 600}
    return {"Authorization": f"Bearer {jwt.encode(claims, site.keys['USER_JWT_SECRET'], 'HS256')}"}


def test_an_upload_comes_out_as_a_served_variant(up: Site) -> None:
    files = {"profile_image": ("photo.jpg", picture(1400, 900), "image/jpeg")}
    answer = requests.patch(f"{up.gateway}/users/me", files=files, headers=user(up, 5), timeout=30)
    assert answer.status_code == 200, answer.text

    def shown() -> str:
        profile = requests.get(f"{up.gateway}/users/me", headers=user(up, 5), timeout=30).json()
        url: str = profile["profile_image_path"]
        return "" if "/temp_images/" in url else url

    url = wait_for(shown, "the smart URL")
    served = requests.get(url, headers={"Accept": "image/avif"}, timeout=30)
    assert (served.status_code, served.headers["content-type"]) == (200, "image/avif")


def test_strangers_get_nothing(up: Site) -> None:
    files = {"images": ("a.jpg", picture())}
    upload = requests.post(f"{up.gateway}/api/upload/listing_image", files=files, timeout=30)
    assert upload.status_code == 401
    assert requests.get(f"{up.gateway}/metrics", timeout=30).status_code == 401
    assert requests.get(f"{up.gateway}/debug/image-queue-status", timeout=30).status_code == 404


def test_the_doctor_finds_everything_in_order(up: Site) -> None:
    wait_for(lambda: "has never ticked" not in up.command("doctor").stdout, "the first look of the sensor")
    done = up.command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_starts_on_a_default_key(migrated: Site) -> None:
    for name, instance in (("imgpipe-gateway", ""), ("imgpipe-worker", "cpu")):
        unit = migrated.unit(name, instance)
        del unit.environment["MEDIA_API_KEY"]
        done = migrated.ended(unit)
        assert done.returncode == 1
        assert done.stdout + done.stderr == "imgpipe: MEDIA_API_KEY must be set in production\n"
