"""What OpenAPI says is complete and true: every error and example is there, and no answer is another than described."""

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import Any

import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

Operation = tuple[str, dict[str, Any]]
SEED = 20261120


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    described: dict[str, Any] = create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none")).openapi()
    return described


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    found: Any = document
    for name in part["$ref"].removeprefix("#/").split("/") if "$ref" in part else ():
        found = found[name]
    return found if "$ref" in part else part


def test_every_json_body_has_an_example_that_fits_its_schema(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        bodies = [resolved(document, answer) for answer in operation["responses"].values()]
        bodies += [operation["requestBody"]] if "requestBody" in operation else []
        for body in bodies:
            for kind, content in body.get("content", {}).items():
                if kind not in {"application/json", "application/problem+json"} or "schema" not in content:
                    continue
                if name == "POST /api/jobs" and body.get("description", "").startswith("Defined for the first"):
                    continue  # the same body as that of 200
                where = f"{name}: {body.get('description')}: give it an example in gateway/openapi_examples.json"
                assert "example" in content, where
                schema = {**content["schema"], "components": document["components"]}
                jsonschema_rs.validate(schema, content["example"])


def test_a_misspelt_field_of_a_body_is_refused(document: dict[str, Any]) -> None:
    """Not where the specification has the body: its clients may send more."""
    schemas = [
        (name, content["schema"])
        for name, operation in operations(document)
        for content in [operation.get("requestBody", {}).get("content", {}).get("application/json")]
        if content
    ]
    open_ones = {
        name
        for name, schema in schemas
        for one in schema.get("anyOf", [schema])
        if one.get("type") != "null" and resolved(document, one).get("additionalProperties") is not False
    }
    assert open_ones == {
        "POST /api/jobs", "POST /api/media/complete/{image_id}", "POST /debug/upload-test-image"
    }  # fmt: skip


def test_every_answer_with_a_body_says_of_which_kind_it_is(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            assert status in {"204", "304"} or resolved(document, answer).get("content"), f"{name}: {status}"


def test_a_form_that_takes_files_is_told_of_as_multipart_only(document: dict[str, Any]) -> None:
    bodies = [
        operation["requestBody"]["content"] for _, operation in operations(document) if "requestBody" in operation
    ]
    forms = [set(content) for content in bodies if "application/json" not in content]
    assert forms == [{"multipart/form-data"}] * 3
    assert not [name for name in document["components"]["schemas"] if name.startswith("Body_")]


def test_every_route_says_in_words_what_it_does_and_names_its_errors(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        summary = operation["summary"]
        assert len(summary) > 3, name
        assert not summary.istitle(), f"{name}: the name of its function"
        assert "`" not in summary, f"{name}: viewers show no Markdown here"
        assert "503" in operation["responses"], name
        if "security" in operation:
            assert "401" in operation["responses"], name
        assert "default" not in operation["responses"], name


@pytest.fixture
def furnished(gateway: Gateway) -> Gateway:
    """With an image that is ready, so that some questions have an answer."""
    gateway.finish(1, profile_image=picture(400, 300))
    return gateway


def test_answers_to_which_no_schema_leads_are_described_too(gateway: Gateway, document: dict[str, Any]) -> None:
    temp = gateway.upload(1, profile_image=picture(400, 300)).json()["profile_image_path"]
    images = {"images": ("a.png", picture(400, 300, format="PNG"))}
    listed = gateway.session.post(f"{gateway.url}/api/upload/listing_image", files=images, timeout=30).json()
    listing = f"/storage/v1/object/public/listing-images/{listed['data']['images'][0]['file_name']}"
    task = gateway.session.post(f"{gateway.url}/api/avatars/tasks", json={"count": 1}, timeout=30).json()["task_id"]
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET /temp_images/{folder}/{name}", temp, {}),
        ("GET /storage/v1/object/public/listing-images/{file_name}", listing, {}),
        ("GET /metrics", "/metrics", {}),
        ("GET /components/{name}", "/components/smart-image.js", {"headers": {"If-None-Match": "*"}}),
        ("POST /debug/upload-test-image", "/debug/upload-test-image", {"json": {"image_path": "gone.jpg"}}),
    ]
    for kind in ("csv", "jsonl", "zip"):
        asked.append(("GET /api/avatars/tasks/{task_id}/export", f"/api/avatars/tasks/{task}/export?format={kind}", {}))
    gateway.run_due()
    asked.append(("GET /serve/{media_id}", "/serve/1?explain=1", {}))
    routes = dict(operations(document))
    for name, path, more in asked:
        answer = gateway.session.request(name.partition(" ")[0], gateway.url + path, timeout=30, **more)
        told = resolved(document, routes[name]["responses"][str(answer.status_code)])
        kind = answer.headers.get("content-type", "").partition(";")[0]
        assert not kind or any(fnmatch(kind, one) for one in told["content"]), (name, answer.status_code, kind)


def bearer(gateway: Gateway, path: str) -> dict[str, str]:
    if path.startswith("/users"):
        return gateway.as_user(1)
    return gateway.as_worker if path.startswith("/api/media") else {}


def ask(gateway: Gateway, examples: int) -> None:
    """Schemathesis' questions, good ones and bad ones, always the same; no answer may surprise."""
    load_all_checks()
    names = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
    checks = CHECKS.get_by_names(names)
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json", timeout=60)
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                cases = operation.as_strategy(generation_mode=mode)
                _asked(gateway, cases, checks, examples)
            except hypothesis.errors.Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE, (
                    operation.label
                )  # a route that takes nothing has no bad question


def _asked(gateway: Gateway, cases: Any, checks: list[Callable[..., Any]], examples: int) -> None:
    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=cases)
    def one(case: Any) -> None:
        case.call_and_validate(
            checks=checks, headers=bearer(gateway, case.operation.path), session=gateway.session, timeout=30
        )

    one()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_questions_of_schemathesis_get_the_answers_that_are_described(furnished: Gateway) -> None:
    ask(furnished, examples=10)
