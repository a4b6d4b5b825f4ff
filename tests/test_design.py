"""Two pages agree with the code and the tests. docs/design.md has the rules that the code cites,
and docs/faults.md says what happens when something fails. Each section names its tests.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DESIGN, FAULTS = "docs/design.md", "docs/faults.md"
NUMBERED_RULES = [str(number) for number in range(1, 15)]

HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
CITATION = re.compile(r"\brules?\s+(\d+(?:(?:,\s*|\s+and\s+|\s+to\s+)\d+)*)", re.IGNORECASE)


def read_sections(page: str) -> dict[str, str]:
    """The text below each heading, by the number of a numbered rule, or else by the heading."""
    _, *parts = HEADING.split((ROOT / page).read_text(encoding="utf-8"))
    headings = [heading.partition(".")[0] for heading in parts[::2]]
    assert len(headings) == len(set(headings))
    return dict(zip(headings, parts[1::2], strict=True))


def find_test_names(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def expand_citation(numbers: str) -> set[str]:
    """ "1 to 4, 6 and 8" as the numbers that it stands for."""
    cited = set(re.findall(r"\d+", numbers))
    for first, last in re.findall(r"(\d+)\s+to\s+(\d+)", numbers):
        cited |= {str(number) for number in range(int(first), int(last) + 1)}
    return cited


def find_cited_rules(path: Path) -> set[str]:
    citations = CITATION.findall(path.read_text(encoding="utf-8"))
    return {number for numbers in citations for number in expand_citation(numbers)}


def test_the_rules_of_the_design_are_numbered_from_1_to_14() -> None:
    assert [rule for rule in read_sections(DESIGN) if rule.isdecimal()] == NUMBERED_RULES


@pytest.mark.parametrize("page", [DESIGN, FAULTS])
def test_every_section_of_the_page_names_its_tests(page: str) -> None:
    assert [heading for heading, text in read_sections(page).items() if not TEST.search(text)] == []


@pytest.mark.parametrize("page", [DESIGN, FAULTS])
def test_every_test_that_the_page_names_exists(page: str) -> None:
    named = TEST.findall((ROOT / page).read_text(encoding="utf-8"))
    known = {
        path: find_test_names(ROOT / path)
        for path in {path for path, _ in named}
        if (ROOT / path).is_file()
    }
    assert [f"{path}::{name}" for path, name in named if name not in known.get(path, set())] == []


def _first_table(text: str) -> list[str]:
    return text.strip().partition("\n\n")[0].splitlines()


def test_every_fault_on_the_page_says_what_happens_and_names_its_test() -> None:
    for stage, text in read_sections(FAULTS).items():
        head, _, *rows = [line.split(" | ") for line in _first_table(text)]
        assert rows, stage
        for row in rows:
            assert len(row) == len(head), (stage, row[0])
            assert all(cell.strip("| ") for cell in row), (stage, row[0])
            assert TEST.search(row[-1]), (stage, row[0])


def test_every_rule_that_the_code_cites_is_in_the_design() -> None:
    rules = read_sections(DESIGN)
    files = [
        path
        for folder in ("include", "dags", "plugins", "docs")
        for path in (ROOT / folder).rglob("*")
    ]
    texts = [path for path in files if path.suffix in (".py", ".md")]
    cited = {path.relative_to(ROOT).as_posix(): find_cited_rules(path) for path in texts}
    assert "5" in cited["include/directory_sync/plan/missing.py"], "citations are found at all"
    assert {
        path: numbers - rules.keys() for path, numbers in cited.items() if numbers - rules.keys()
    } == {}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("rule 5 of docs/design.md", {"5"}),
        ("rules 1 to 4, 6 and 13", {"1", "2", "3", "4", "6", "13"}),
        ("Rules\n9 and 11", {"9", "11"}),
        ("the rules alone; ruler 7", set()),
    ],
)
def test_citations_of_several_rules_are_understood(text: str, numbers: set[str]) -> None:
    assert {
        number for found in CITATION.findall(text) for number in expand_citation(found)
    } == numbers
