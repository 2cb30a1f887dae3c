"""A listing with four photographs; each arrives once its URL, which worked from the first second, serves a WebP."""

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Scenario, Stack


class ListingsScenario(Scenario):
    """`POST /api/upload/listing_image` with several files, then the URLs of the answer."""

    pipeline = "listings"
    items = 4

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self._originals: dict[str, tuple[str, bytes]] = {}
        self._arrived: dict[str, bytes] = {}

    def feed(self) -> None:
        images = {
            "cat.jpg": photos.jpeg("chelsea"),
            "coffee.jpg": photos.jpeg("coffee", width=2000),
            "astronaut.jpg": photos.jpeg("astronaut"),
            "wall.jpg": photos.jpeg("brick", width=2000),
        }
        answer = self.stack.accepted(
            "POST",
            "/api/upload/listing_image",
            headers=self.stack.user_headers(1),
            data={"listing_title": "Cosy flat in the old town"},
            files=[("images", (name, data)) for name, data in images.items()],
        )
        urls = [image["url"] for image in answer.json()["data"]["images"]]
        self._originals = dict(zip(urls, images.items(), strict=True))
        for url in urls:
            self.stack.accepted("GET", url)

    def look(self) -> None:
        for url in [url for url in self._originals if url not in self._arrived]:
            served = self.stack.accepted("GET", url)
            if served.headers.get("Content-Type") == "image/webp":
                self._arrived[url] = served.content
        self.result.arrived = len(self._arrived)
        self.result.waiting_for = f"{self.items - self.result.arrived} WebP"

    def show(self) -> list[Exhibit]:
        return [
            Exhibit(name, {"in": original, "out, WebP": self._arrived[url]}, {"Served at": url})
            for url, (name, original) in self._originals.items()
            if url in self._arrived
        ]
