"""The prompts: the packaged ones are whole, others take their place, and a bad file is refused with its reason."""

import re
from pathlib import Path

import pytest

import imgpipe_orchestration
from imgpipe_orchestration.avatars.model import ImagePrompt, PersonaData
from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.media.describing import Seen, SeenLogo, SeenSite, versions
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.prompts.library import Library
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.vision_reports.inspection import Finding, Inspection, shape

PACKAGE = Path(imgpipe_orchestration.__file__).parent
SHAPES = {
    "describe": (Seen, SeenLogo, SeenSite),
    "report": (Inspection, Finding),
    "persona": (PersonaData,),
    "image_prompt": (ImagePrompt,),
    "avatar": (),
}


def with_file(folder: Path, name: str, text: str, **settings: str) -> Settings:
    (folder / name).write_text(text)
    return Settings(prompts_dir=str(folder), **settings)


def packaged(name: str) -> str:
    return (PACKAGE / "prompts" / f"{name}.md").read_text()


def test_each_packaged_prompt_describes_fields_that_the_answer_has() -> None:
    library = Library(Settings())
    for name, shapes in SHAPES.items():
        front = library[name].front
        fields = {field for shape in shapes for field in shape.model_fields}
        assert set(front.fields) <= fields, name
        assert library[name].question(**dict.fromkeys(front.variables, "x")), name
    assert {path.stem for path in (PACKAGE / "prompts").glob("*.md")} == set(SHAPES)


def test_descriptions_reach_the_schema_and_limits_stay() -> None:
    library = Library(Settings())
    inspection = shape(library["report"]).model_json_schema()
    finding = inspection["$defs"]["Finding"]["properties"]
    assert finding["title"]["description"] == "What it is, in a few words."
    assert finding["confidence"]["maximum"] == 1


def test_the_company_is_what_brand_context_says_and_stands_in_no_python_file() -> None:
    assert "an online art festival" in Library(Settings())["describe"].instructions()
    branded = Library(Settings(brand_context="a museum of design"))["describe"].instructions()
    assert "a museum of design" in branded and "festival" not in branded
    assert not [path for path in PACKAGE.rglob("*.py") if "art festival" in path.read_text()]


def test_a_file_takes_a_prompts_place_and_only_what_it_changes_has_another_version(tmp_path: Path) -> None:
    before = versions(Library(Settings())["describe"])
    changed = packaged("describe").replace("This is a business logo.", "This is the logo of a company.")
    after = versions(Library(with_file(tmp_path, "describe.md", changed))["describe"])
    assert {kind for kind in before if before[kind] != after[kind]} == {"logo"}
    described = packaged("describe").replace("One sentence", "Two sentences")
    after = versions(Library(with_file(tmp_path, "describe.md", described))["describe"])
    assert {kind for kind in before if before[kind] != after[kind]} == {"site", "sites"}


def test_an_owners_text_is_data_and_no_template() -> None:
    asked = Library(Settings())["describe"].question(kind="site", owner='{"bio": "{{ brand }}{% raw %}"}')
    assert "{{ brand }}{% raw %}" in asked


GOOD = packaged("describe")
WRONG = {
    "unknown.md": (GOOD, "there is no prompt 'unknown'"),
    "describe.md": ("Describe it.", "begins with TOML between two lines of +++"),
    "report.md": (GOOD, "task must be 'report'"),
}
WRONG_DESCRIBE = {
    "a variable of nobody": (GOOD.replace("{{ owner }}", "{{ owner }} {{ salary }}"), "'salary', which is not in"),
    "a variable that is not given": (GOOD.replace('["kind", "owner"]', '["kind", "owner", "salary"]'), "'salary'"),
    "a field that is not in the answer": (GOOD.replace("style =", 'price = "EUR"\nstyle ='), "no field 'price'"),
    "a broken template": (GOOD.replace("{%- endif %}", ""), "of the template"),
    "a variable in the instructions": (GOOD.replace("Answer only", "{{ kind }}: answer only"), "have only `brand`"),
    "an unknown filter": (GOOD.replace("a {{ kind }} image", "a {{ kind|capitalise }} image"), "'capitalise'"),
    "a filter at the top": (GOOD.replace("Describe it.\n", "{{ owner|shout }}\n"), "'shout'"),
    "a filter in a branch": (GOOD.replace("the brand's name.", "{{ owner|shout }}"), "filter or test 'shout'"),
    "an unknown test": (GOOD.replace('kind == "logo"', "kind is logolike"), "filter or test 'logolike'"),
    "another template": (GOOD.replace("Describe it.\n", '{% include "x.md" %}\n'), "cannot use another"),
    "broken TOML": (GOOD.replace('version = "2"', "version = "), "no valid TOML"),
    "no version": (GOOD.replace('version = "2"\n', ""), "version: Field required"),
}
CASES = {name: (name, *wrong) for name, wrong in WRONG.items()} | {
    name: ("describe.md", *wrong) for name, wrong in WRONG_DESCRIBE.items()
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_at_the_start_with_its_name(case: str, tmp_path: Path) -> None:
    name, text, told = CASES[case]
    with pytest.raises(SettingsError, match=re.escape(f"PROMPTS_DIR: {name}")) as caught:
        check_settings(with_file(tmp_path, name, text))
    assert told in caught.value.public


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        Library(Settings(prompts_dir=str(tmp_path / "nowhere")))
