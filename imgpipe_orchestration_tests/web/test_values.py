"""Values and parameters of requests that are refused: by name, in words that everybody can read."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.client import Client

MEDIA_KEY = {"Authorization": f"Bearer {Settings().media_api_key}"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A gateway whose databases are away: what is refused is refused before they are asked."""
    with Client(create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/media?color=zz", "color: a colour is six of the digits 0 to 9 and a to f, such as ff8800"),
        ("/api/media/search?color=zz", "color: a colour is six of the digits 0 to 9 and a to f, such as ff8800"),
        ("/media?user=me", "user: must be a number of at most 18 digits"),
        ("/avatars?before=1x", "before: must be a number of at most 18 digits"),
        ("/upload/state?ids=1;2", "ids: must be numbers with commas between them"),
    ],
)
def test_what_a_text_must_be_is_said_in_words(client: Client, path: str, told: str) -> None:
    answer = client.get(path, headers=MEDIA_KEY)
    assert (answer.status_code, answer.json()["detail"]) == (422, told)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/cron-jobs", "name"),
        ("/cron-jobs", "organization_id"),
        ("/api/avatars/tasks", "brief"),
        ("/api/avatars/tasks", "language"),
        ("/api/avatars/tasks", "style"),
        ("/api/moderation/1", "reason"),
        ("/api/media/1/report", "reason"),
    ],
)
def test_a_text_that_no_row_can_hold_is_refused_by_the_name_of_its_field(client: Client, path: str, field: str) -> None:
    errors = client.request("post", path, json={field: "a\0b"}).json()["errors"]
    assert {"field": field, "message": "must not contain NUL"} in errors


@pytest.mark.parametrize("written", [str(2**63), "1_0", "009", "+9", " 9"])
def test_what_is_no_id_is_refused_by_the_name_of_its_field_or_unknown(client: Client, written: str) -> None:
    """`1_0` may be an image of another worker, and must not be taken for 10."""
    asked = []
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, told in methods.items():
            for one in told.get("parameters", ()):
                kinds = [one["schema"], *one["schema"].get("anyOf", ())]
                if any(kind.get("type") == "integer" for kind in kinds) and one["name"] not in {"limit", "days"}:
                    asked.append((method, path, one["in"], one["name"]))
    assert {"media_id", "before", "similar_to", "user_id"} <= {name for *_, name in asked}
    for method, path, where, name in asked:
        query = {name: written} if where == "query" else {}
        body = {} if method == "get" else {"box": None, "private": True}
        options = {"json": body} if body else {}
        address = path.replace("{media_id}", quote(written)).replace("{kind}", "briefs")
        answer = client.request(method, address, params=query, headers=MEDIA_KEY, **options)
        refused = (404, None) if name == "media_id" and path.startswith("/api/m") else (422, name)
        assert (answer.status_code, answer.json().get("field")) == refused, (path, answer.text)
