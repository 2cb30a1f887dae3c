"""A listing with four photographs; each arrives once its URL, which worked from the first second, serves a WebP."""

from collections.abc import Iterator

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Exhibit, Result, Stack


def listings(stack: Stack, result: Result) -> Iterator[None]:
    """`POST /api/upload/listing_image` with several files, then the URLs of the answer."""
    images = {
        "cat.jpg": photos.jpeg("chelsea"),
        "coffee.jpg": photos.jpeg("coffee", width=2000),
        "astronaut.jpg": photos.jpeg("astronaut"),
        "wall.jpg": photos.jpeg("brick", width=2000),
    }
    result.items = len(images)
    answer = stack.accepted(
        "POST",
        "/api/upload/listing_image",
        headers=stack.user_headers(1),
        data={"listing_title": "Cosy flat in the old town"},
        files=[("images", (name, data)) for name, data in images.items()],
    )
    urls = [image["url"] for image in answer.json()["data"]["images"]]
    arrived: dict[str, bytes] = {}
    while not result.settled:
        for url in [url for url in urls if url not in arrived]:
            served = stack.accepted("GET", url)
            if served.headers.get("Content-Type") == "image/webp":
                arrived[url] = served.content
        result.arrived = len(arrived)
        result.waiting_for = f"{result.items - result.arrived} WebP"
        yield
    result.exhibits = [
        Exhibit(name, {"in": original, "out, WebP": arrived[url]}, {"Served at": url})
        for url, (name, original) in zip(urls, images.items(), strict=True)
        if url in arrived
    ]
