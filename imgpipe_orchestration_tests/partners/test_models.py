"""MODELS_FILE: what it gives each task, and what is wrong with a bad one."""

from pathlib import Path
from typing import get_args

import pytest

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.media.model import BY_KIND
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.partners.models import Choice, ImageKind, Models
from imgpipe_orchestration.settings import Settings

LOCAL = """
[providers.local]
dialect = "openai-chat"
base_url = "http://127.0.0.1:11434/v1/"
"""


def written(folder: Path, text: str, **settings: str) -> Settings:
    path = folder / "models.toml"
    path.write_text(text)
    return Settings(models_file=str(path), **settings)


def test_without_a_file_the_environments_names_are_taken() -> None:
    models = Models(
        Settings(openai_api_key="k-12345678", flowise_base_url="http://flows:3000", openai_vision_model="v")
    )
    assert models.choices("describe") == models.choices("report") == [Choice("openai", "v")]
    assert models.choices("persona") == [Choice("flowise", "persona-data")]
    assert models.choices("labels") == []
    assert models.choices("moderate") == [Choice("openai", "omni-moderation-latest")]
    assert Models(Settings(openai_api_key="k-12345678", moderation_provider="none")).choices("moderate") == []
    assert Models(Settings(google_vision_api_key="g")).choices("moderate") == [Choice("google", "")]
    assert models.key("openai") == "k-12345678" and models.key("flowise") == ""


def test_a_file_names_the_models_in_order_and_what_it_does_not_name_stays(tmp_path: Path) -> None:
    text = (
        LOCAL
        + """
[tasks.describe]
use = ["openai:gpt-6-luna", "local:llava:13b"]
[tasks.embed]
use = []
[tasks.labels.kinds.logo]
features = ["LOGO_DETECTION"]
[tasks.labels]
use = ["google"]
features = ["OBJECT_LOCALIZATION"]
"""
    )
    models = Models(written(tmp_path, text, openai_api_key="k", google_vision_api_key="g"))
    assert models.choices("describe") == [Choice("openai", "gpt-6-luna"), Choice("local", "llava:13b")]
    assert models.providers["local"].base_url == "http://127.0.0.1:11434/v1"
    assert models.choices("embed") == []
    assert models.choices("report") == [Choice("openai", "gpt-6-luna")]
    assert models.features("logo") == ("LOGO_DETECTION",)
    assert models.features("product") == models.features("header") == ("OBJECT_LOCALIZATION",)


def test_a_key_is_in_the_environment_that_the_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = written(tmp_path, LOCAL + 'api_key_env = "LOCAL_KEY"')
    with pytest.raises(SettingsError, match=r"providers\.local: its key belongs in LOCAL_KEY, which is not set"):
        Models(settings)
    monkeypatch.setenv("LOCAL_KEY", "secret-of-local")
    assert Models(settings).key("local") == "secret-of-local"


WRONG = {
    "no TOML": ("[tasks", "is not valid TOML"),
    "an unknown task": ('[tasks.paint]\nuse = ["local:x"]', "tasks.paint"),
    "an unknown word": (LOCAL + "tls = true", "providers.local.tls"),
    "an unknown dialect": ('[providers.x]\ndialect = "grpc"\nbase_url = "http://x"', "providers.x.dialect"),
    "no such provider": ('[tasks.describe]\nuse = ["cloud:x"]', "'cloud:x' names no provider"),
    "no model": (LOCAL + '[tasks.describe]\nuse = ["local"]', "'local' names no model"),
    "another dialect": (LOCAL + '[tasks.labels]\nuse = ["local:x"]', "this task takes google-vision"),
    "an unknown feature": ('[tasks.labels]\nuse = []\nfeatures = ["SMELL"]', "'SMELL' is not a Google Vision feature"),
    "no feature": ("[tasks.labels]\nuse = []\nfeatures = []", "tasks.labels.features"),
    "no feature of a kind": ("[tasks.labels]\nuse = []\nkinds.logo.features = []", "tasks.labels.kinds.logo.features"),
    "an unknown kind": (
        '[tasks.labels]\nuse = []\nkinds.logos.features = ["TEXT_DETECTION"]',
        "tasks.labels.kinds.logos",
    ),
    "another task's features": (
        '[tasks.report]\nuse = []\nfeatures = ["TEXT_DETECTION"]',
        "tasks.report.features: only labels",
    ),
    "another task's kinds": ("[tasks.report]\nuse = []\nkinds = {}", "tasks.report.kinds: only labels takes it"),
    "another task's dimensions": ("[tasks.report]\nuse = []\ndimensions = 5", "tasks.report.dimensions: only embed"),
    "another task's canary": ("[tasks.report]\nuse = []\ncanary = {use = [], share = 1}", "tasks.report.canary: only"),
    "two models of embeddings": (LOCAL + '[tasks.embed]\nuse = ["local:x", "local:y"]', "one model can be compared"),
    "too many dimensions": (LOCAL + '[tasks.embed]\nuse = ["local:x"]\ndimensions = 3072', "tasks.embed.dimensions"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bad_file_is_refused_at_the_start_with_its_place(wrong: str, tmp_path: Path) -> None:
    text, told = WRONG[wrong]
    with pytest.raises(SettingsError, match=r"^MODELS_FILE") as caught:
        check_settings(written(tmp_path, text))
    assert told in caught.value.public


def test_the_kinds_of_images_are_those_of_uploads() -> None:
    assert set(get_args(ImageKind)) == set(BY_KIND)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MODELS_FILE cannot be read"):
        Models(Settings(models_file=str(tmp_path / "nowhere.toml")))
