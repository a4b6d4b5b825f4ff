"""ARCHITECTURE.md is held to the code: its map has every room, and imports obey its rules."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "include" / "directory_sync"

FOLDERS_BELOW = {
    "cognito": set(),
    "staging": set(),
    "events": set(),
    "plan": {"cognito"},  # only the columns of a snapshot
    "joget": {"plan"},
    "pages": {"plan", "staging"},
    "tasks": {"cognito", "staging", "events", "plan", "joget"},
    "command_line": {"staging", "pages", "tasks"},
    "command_line/doctor": {"cognito", "staging", "events", "joget", "pages", "orchestration"},
    "orchestration": {"staging", "pages", "tasks"},
}
"""For each folder, the others that it may import."""


def find_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, inside of functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {
        name.removeprefix("directory_sync.") for name in found if name.startswith("directory_sync.")
    }


def list_modules(folder: str) -> list[Path]:
    """The modules in a folder, without those in folders that have rules of their own."""
    own = [PACKAGE / other for other in FOLDERS_BELOW if other.startswith(f"{folder}/")]
    return [
        path
        for path in (PACKAGE / folder).rglob("*.py")
        if not any(path.is_relative_to(other) for other in own)
    ]


def find_folders_imported_by(folder: str) -> set[str]:
    imports = {name.partition(".")[0] for path in list_modules(folder)
               for name in find_imports(path)}  # fmt: skip
    return {room for room in imports if (PACKAGE / room).is_dir()} - {folder.partition("/")[0]}


def test_the_map_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert [name for name in sorted(folders) if f"`{name}/`" not in text] == []
    loose = [path.stem for path in PACKAGE.glob("*.py") if path.name != "__init__.py"]
    inside = [path.stem for path in (PACKAGE / "plan").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in [*loose, *inside] if f"`{name}`" not in text] == []


@pytest.mark.parametrize(("folder", "allowed"), FOLDERS_BELOW.items())
def test_a_folder_imports_only_folders_below_it(folder: str, allowed: set[str]) -> None:
    assert find_folders_imported_by(folder) - allowed == set()


def test_every_folder_has_its_place_among_the_rules() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {folder.partition("/")[0] for folder in FOLDERS_BELOW}


def test_modules_at_the_root_import_no_folder_but_the_report_which_counts_plans() -> None:
    root = [path for path in PACKAGE.glob("*.py") if path.name not in ("__main__.py", "report.py")]
    assert {
        (path.name, name)
        for path in root
        for name in find_imports(path)
        if (PACKAGE / name.partition(".")[0]).is_dir()
    } == set()
