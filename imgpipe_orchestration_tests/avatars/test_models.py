"""People invented by a chat model in Flowise's place."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from pydantic import BaseModel

from imgpipe_orchestration.avatars.model import ImagePrompt, PersonaData, TaskStatus
from imgpipe_orchestration.billing.calls import PaidCall
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.avatars.test_personas import person
from imgpipe_orchestration_tests.partners.wire import reply, serving


def test_a_chat_model_invents_people_and_writes_the_words_of_their_pictures(desk: Desk, tmp_path: Path) -> None:
    asked: list[dict[str, object]] = []

    def chat(handler: BaseHTTPRequestHandler, _: int) -> None:
        sent: bytes = handler.sent  # type: ignore[attr-defined]  # by `serving`
        asked.append(json.loads(sent))
        wanted = asked[-1]["response_format"]["json_schema"]["schema"]["properties"]  # type: ignore[index]
        answer = {"people": [person("Ada")]} if "people" in wanted else {"prompt": "A portrait of Ada Müller, baker."}
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": json.dumps(answer)}}
        reply(handler, json.dumps({"model": "m", "choices": [choice]}).encode(), Content_Type="application/json")

    with serving(chat) as server:
        path = tmp_path / "models.toml"
        path.write_text(f"""
[providers.local]
dialect = "openai-chat"
base_url = "{server.url}"
[tasks.persona]
use = ["local:people"]
[tasks.prompt]
use = ["local:words"]
""")
        desk.change(models_file=str(path))
        task = desk.made(1)
    assert desk.task(task).status is TaskStatus.COMPLETED
    (made,) = desk.people(task)
    assert (made.name, made.image_prompt) == ("Ada Müller", "A portrait of Ada Müller, baker.")
    assert desk.standins.calls("flowise") == []
    assert [each["model"] for each in asked] == ["people", "words"]
    known: dict[str, tuple[type[BaseModel], dict[str, object]]] = {
        "persona": (PersonaData, {"task": task.id, "batch": 0}),
        "image_prompt": (ImagePrompt, {"persona": made.id}),
    }
    for name, (shape, of) in known.items():
        version = desk.services.prompts[name].version(shape, asked="")
        call = PaidCall.of("", "", "", inputs=[], parameters={**of, "prompt": version})
        query = "select 1 from paid_calls where parameter_hash = :hash"
        assert desk.sql(query, hash=call.parameter_hash), "another prompt is another call"
