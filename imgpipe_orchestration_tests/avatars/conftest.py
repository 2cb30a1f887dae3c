"""A bench of its own for each test: services on real servers, partners that can be told to fail, small pictures."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from sqlalchemy import text

from imgpipe_orchestration.avatars import records, runs, store
from imgpipe_orchestration.avatars.model import TaskRequest
from imgpipe_orchestration.avatars.records import Persona, Task
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.conftest import StandInAccess


@pytest.fixture
def settings(settings: Settings, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("imgpipe_orchestration.wiring.services.IMAGE_SECONDS", 120.0)
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.BASE_SIZE", "384x384")
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.GRID_SIZE", "768x768")
    return settings.model_copy(
        update={
            # Rate limits are learnt by key: what one test is told must not hold back the next.
            "openai_api_key": f"test-key-{uuid4().hex}",
            "openai_base_url": standins.openai_url,
            "flowise_base_url": standins.flowise_url,
            "partner_timeout_seconds": 30.0,
            "lease_seconds": 2.0,
            "moderation": "off",  # judging has tests of its own, and counts as calls to OpenAI
        }
    )


def source_of(data: bytes) -> str | None:
    """The Digital Source Type that a picture's XMP states, or None."""
    with Image.open(BytesIO(data)) as image:
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = packet.decode() if isinstance(packet, bytes) else str(packet)
    found = re.search(r'DigitalSourceType="([^"]+)"', xmp)
    return found and found[1]


@dataclass
class Desk:
    """Ask for people, run the two runs, look at what became of them."""

    services: Services
    standins: StandInAccess
    started: int = 0

    def ask(self, count: int = 1, **options: Any) -> Task:
        with transaction(self.services.engine) as connection:
            return store.create(connection, self.services.claims, TaskRequest(count=count, **options))

    def data(self) -> runs.Report:
        self.started += 1
        return runs.run_data(self.services, f"data-{self.started}")

    def images(self, **options: Any) -> runs.Report:
        self.started += 1
        return runs.run_images(self.services, f"images-{self.started}", **options)

    def task(self, task: Task) -> Task:
        with transaction(self.services.engine) as connection:
            return records.get(connection, task.id)

    def people(self, task: Task) -> list[Persona]:
        with transaction(self.services.engine) as connection:
            return records.people_of(connection, task.id)

    def cost(self, task: Task) -> Decimal:
        """US dollars that the task cost so far."""
        with transaction(self.services.engine) as connection:
            return Decimal(records.progress(connection, [task.id])[task.id].cost_usd)

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement, none of one that gives none."""
        with transaction(self.services.engine) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def with_people(self, count: int = 1, **options: Any) -> Task:
        """A task after the first run."""
        task = self.ask(count, **options)
        self.data()
        return task

    def made(self, count: int = 1, **options: Any) -> Task:
        """A task after both runs."""
        task = self.with_people(count, **options)
        self.images()
        return task

    def both_now(self) -> None:
        """The two runs, which wait for no pause."""
        self.data_now()
        self.images()

    def cancel(self, task: Task) -> None:
        with transaction(self.services.engine) as connection:
            store.cancel(connection, self.services.claims, task)

    def retry_failed(self, task: Task) -> int:
        with transaction(self.services.engine) as connection:
            return store.retry_failed(connection, self.services.claims, task)

    def change(self, **settings: Any) -> None:
        """Work under other settings from now on."""
        self.services.settings = self.services.settings.model_copy(update=settings)

    def use_flowise(self, url: str) -> None:
        """Ask another Flowise from now on."""
        self.change(flowise_base_url=url, flowise_api_key="a-key", multithread_flowise=1)

    def data_now(self) -> runs.Report:
        """A run of data that waits for no pause."""
        self.now()
        return self.data()

    def images_now(self) -> runs.Report:
        """A run of images that waits for no pause."""
        self.now()
        return self.images()

    def now(self) -> None:
        """Let every pause be over: items that wait for their time are due, providers are not paused any more."""
        self.sql("update work_items set due_at = now() where state = 'waiting' and due_at is not null")
        self.sql("delete from spending_pauses")

    def eventually(self, step: Callable[[], Any], done: Callable[[], bool], *, seconds: float = 30) -> None:
        """Repeat `step` until `done`."""
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "not done in time"
            step()

    def calls(self, provider: str, operation: str) -> int:
        """Calls that the provider answered with a result, thus that cost money."""
        return sum(call["status"] == 200 for call in self.standins.calls(provider, operation))


@pytest.fixture
def desk(services: Services, standins: StandInAccess) -> Desk:
    return Desk(services, standins)
