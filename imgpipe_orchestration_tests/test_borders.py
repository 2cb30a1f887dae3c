"""The borders that the folders draw: who may know of whom. Asked of fresh interpreters, for what is loaded counts."""

import ast
import json
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from itertools import pairwise, product
from pathlib import Path

import imgpipe_orchestration

PACKAGE = Path(imgpipe_orchestration.__file__).parent
NAME = PACKAGE.name
DAGSTER_FILES = {"definitions", "assets", "jobs", "sensors", "schedules", "checks", "resources"}
# Runs and workers are started from here: Dagster is what they are about.
DAGSTER_FOLDERS = {"dagster_side"}
HEAVY = {"PIL", "numpy", "cv2", "openai", "boto3", "botocore", "pymongo", "fastapi", "sqlalchemy", "alembic"}


def loaded_by(*modules: str) -> set[str]:
    """The modules a fresh interpreter holds after importing `modules`."""
    code = f"import sys, json\nfor name in {modules!r}: __import__(name)\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return set(json.loads(answer.stdout.splitlines()[-1]))


def modules(below: str = "") -> list[str]:
    """Every module of the package, or of a folder of it, but for scripts and revisions."""
    files = sorted((PACKAGE / below).rglob("*.py"))
    names = [".".join((NAME, *file.relative_to(PACKAGE).with_suffix("").parts)) for file in files]
    return [
        name.removesuffix(".__init__") for name in names if "migrations" not in name and not name.endswith("__main__")
    ]


def imports_of(module: str) -> set[str]:
    """Modules that `module` imports anywhere, also inside its functions."""
    path = PACKAGE.parent / Path(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_command_line_starts_without_dagster_and_without_what_is_heavy() -> None:
    loaded = loaded_by(f"{NAME}.cli")
    assert not loaded & {"dagster", *HEAVY}


def test_what_is_not_named_for_dagster_does_not_load_it() -> None:
    plain = [
        name
        for name in modules()
        if name.rsplit(".", 1)[-1] not in DAGSTER_FILES and not DAGSTER_FOLDERS & set(name.split("."))
    ]
    assert f"{NAME}.gateway.app" in plain
    assert "dagster" not in loaded_by(*plain)


def folder_of(module: str) -> str | None:
    """The folder of the package that a module is in; None for those of the root and of others."""
    package, *rest = module.split(".")
    return rest[0] if package == NAME and rest and (PACKAGE / rest[0]).is_dir() else None


def drawn() -> tuple[set[str], set[tuple[str, str]]]:
    """The folders in the picture of docs/architecture.md, and its arrows between them."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    picture = page.split("```mermaid\n")[1].split("```")[0]
    groups = {node: label.split(" · ") for node, label in re.findall(r'(\w+)\["(.+)"\]', picture)}
    chains = [
        [groups.get(name, [name]) for name in re.findall(r"\w+", line)]
        for line in picture.splitlines()
        if "-->" in line
    ]
    pairs = {pair for chain in chains for one, other in pairwise(chain) for pair in product(one, other)}
    return {name for chain in chains for node in chain for name in node}, pairs


def test_the_picture_of_the_architecture_has_every_folder_and_no_circle() -> None:
    folders, arrows = drawn()
    assert folders == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    TopologicalSorter({one: {other for left, other in arrows if left == one} for one in folders}).prepare()


def test_every_import_between_folders_follows_the_arrows_of_the_picture() -> None:
    folders, arrows = drawn()
    imports = {
        (folder, other)
        for folder in folders
        for module in modules(folder)
        for name in imports_of(module)
        if (other := folder_of(name)) and other != folder
    }
    allowed = arrows
    while further := {(one, last) for one, via in allowed for also, last in arrows if via == also} - allowed:
        allowed = allowed | further
    assert imports <= allowed, f"not drawn in docs/architecture.md: {sorted(imports - allowed)}"


def test_no_import_between_folders_and_modules_of_the_root_runs_in_a_circle() -> None:
    known = set(modules())
    rooms: dict[str, set[str]] = {}
    for module in known - {NAME}:
        room = module.split(".")[1]
        theirs = {name.split(".")[1] for name in imports_of(module) & known if "." in name}
        rooms[room] = rooms.get(room, set()) | theirs - {room}
    TopologicalSorter(rooms).prepare()


def test_imaging_knows_neither_database_nor_network() -> None:
    barred = {"sqlalchemy", "psycopg", "boto3", "pymongo", "requests", "dagster", f"{NAME}.storage", f"{NAME}.partners"}
    for module in modules("imaging"):
        strays = {name for name in imports_of(module) for bar in barred if (name + ".").startswith(bar + ".")}
        assert not strays, f"{module} imports {strays}"


def test_the_definitions_load_nothing_heavy_that_dagster_has_not_loaded() -> None:
    """A run in a pod of its own loads them anew; boto3 belongs to dagster-aws's resource, the rest to its storage."""
    heavy = {name for name in loaded_by(f"{NAME}.definitions") if name.split(".")[0] in HEAVY}
    heavy -= loaded_by("dagster", "dagster_postgres", "dagster_aws.s3")
    assert {name.split(".")[0] for name in heavy} == set()


def test_the_run_launcher_loads_no_client_of_stores() -> None:
    """The daemon and the webserver load it, and live for weeks."""
    loaded = loaded_by(f"{NAME}.dagster_side.launcher") - loaded_by("dagster")
    assert not {"boto3", "obstore", "pymongo", "openai"} & loaded


def test_every_module_says_what_it_is_for() -> None:
    silent = [file for file in PACKAGE.rglob("*.py") if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []
