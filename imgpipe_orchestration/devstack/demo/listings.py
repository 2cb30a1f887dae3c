"""A listing with four photographs; each arrives once its URL, which worked from the first second, serves a WebP."""

from __future__ import annotations

from http import HTTPStatus

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Progress, Scenario, Stack, picture


class ListingsScenario(Scenario):
    """`POST /api/upload/listing_image` with several files, then the URLs of the answer."""

    pipeline = "listings"
    items = 4

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._originals: dict[str, tuple[str, bytes]] = {}
        self._waiting: list[str] = []
        self._arrived: list[str] = []
        self._failures: list[str] = []

    def feed(self) -> None:
        images = {
            "cat.jpg": photos.jpeg("chelsea"),
            "coffee.jpg": photos.jpeg("coffee", width=2000),
            "astronaut.jpg": photos.jpeg("astronaut"),
            "wall.jpg": photos.large(2),
        }
        answer = self.stack.accepted(
            "POST",
            "/api/upload/listing_image",
            headers=self.stack.user_headers(1),
            data={"listing_title": "Cosy flat in the old town"},
            files=[("images", (name, data)) for name, data in images.items()],
        )
        self._waiting = [image["url"] for image in answer.json()["data"]["images"]]
        self._originals = dict(zip(self._waiting, images.items(), strict=True))
        for url in self._waiting:
            self._look_at(url)

    def look(self) -> Progress:
        for url in list(self._waiting):
            if self._look_at(url) == "image/webp":
                self._waiting.remove(url)
                self._arrived.append(url)
        return Progress(len(self._arrived), f"{len(self._waiting)} WebP", self._failures)

    def _look_at(self, url: str) -> str:
        """The type of what the URL serves; empty while a server is away. Anything else than an image is a failure."""
        answer = self.stack.request("GET", url)
        if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
            return ""
        if answer.status_code != 200 and url in self._waiting:
            self._waiting.remove(url)
            self._failures.append(f"{url} answered {answer.status_code}")
        return answer.headers.get("Content-Type", "")

    def exhibits(self) -> list[Exhibit]:
        shown = []
        for url in self._arrived:
            name, original = self._originals[url]
            webp = self.stack.accepted("GET", url).content
            shown.append(Exhibit(name, [picture(original, "in"), picture(webp, "out, WebP")], {"Served at": url}))
        return shown

    def links(self) -> list[str]:
        return [*self._arrived[:1], self.stack.dagster("/locations/imgpipe/jobs/process_image_queue/runs")]


SCENARIO = ListingsScenario
