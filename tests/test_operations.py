"""docs/operations.md has every message that a run may end with, and only commands that exist."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from directory_sync import errors
from directory_sync.__main__ import app
from directory_sync.alerts import Condition
from directory_sync.joget.ledger import definition
from directory_sync.joget.schema import REQUIRED_COLUMNS
from directory_sync.reasons import REASON_RULES, Reason
from directory_sync.report import Report
from directory_sync.run import Parameters, Run
from directory_sync.settings import Section, Sync
from directory_sync.vocabulary import Action, Cause, Entity, Outcome, RunKind, State, Verdict
from tests.company import Company, people

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \|(.*)$", PAGE, re.MULTILINE)
WORDS = (Cause, Reason, Outcome, Verdict, State, RunKind, Action, Entity, Condition)
"""The words that the pages, reports and the ledger use."""

QUOTED = set(re.findall(r"`([^`\n]+)`", PAGE))


# Errors


@cache
def read_code() -> list[ast.Module]:
    return [
        ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "include").rglob("*.py"))
    ]


@cache
def find_error_classes() -> set[str]:
    """Names of all error classes, those outside of errors.py too."""
    known = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    for tree in read_code():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(b, ast.Name) and b.id in known for b in node.bases
            ):
                known.add(node.name)
    return known


def find_names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def write_sentence(node: ast.expr) -> str | None:
    """Write a text as the page does, with … for filled-in parts; None if the node isn't a text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = node.values
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return None


@cache
def find_error_sentences() -> set[str]:
    """The texts of all errors that the code below include/ makes, by class or by a variable that
    holds a class.
    """
    classes = find_error_classes() | {"AirflowSkipException"}
    found = set[str | None]()
    for tree in read_code():
        holders = {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and find_names(node.value) & classes
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id in classes | holders:
                found.add(write_sentence(node.args[0]))
    return {sentence for sentence in found if sentence}


def find_doubts() -> set[str]:
    """Why a snapshot may not be proven complete."""
    tree = ast.parse(
        (ROOT / "include/directory_sync/cognito/completeness.py").read_text(encoding="utf-8")
    )
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    appended = [
        call.args[0]
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "append"
    ]
    return {sentence for node in appended if (sentence := write_sentence(node))}


def is_covered(sentence: str, key: str) -> bool:
    """Whether a row's text is the beginning of a sentence. If the code fills in the sentence's
    beginning, the row may show an example of it.
    """
    ends = (key[at:] for at in range(1, len(key) - 9)) if sentence.startswith("…") else ()
    return sentence.startswith(key) or any(sentence[1:].startswith(end) for end in ends)


@pytest.mark.parametrize(
    "sentences", [find_error_sentences(), find_doubts()], ids=["errors", "doubts"]
)
def test_every_error_and_every_doubt_has_a_row_that_begins_as_it_does(sentences: set[str]) -> None:
    keys = [key for key, _ in ROWS]
    assert len(sentences) > 5, "sentences are found at all"
    assert [
        text for text in sorted(sentences) if not any(is_covered(text, key) for key in keys)
    ] == []


def test_every_row_of_a_message_is_about_a_message_that_the_code_has() -> None:
    _, messages = PAGE.split("### Settings, parameters and Connections")
    messages, _ = messages.split("## Why a snapshot")
    keys = re.findall(r"^\| `([^`]+)` \|", messages, re.MULTILINE)
    sentences = find_error_sentences()
    assert [key for key in keys if not any(is_covered(text, key) for text in sentences)] == []


def test_every_error_class_is_on_the_page() -> None:
    classes = {name for name in find_error_classes() if not name.startswith("_")}
    assert sorted(classes - QUOTED) == []


# Words


def test_every_word_of_the_vocabulary_is_on_the_page() -> None:
    words = [*Cause, *Reason, *Outcome, *Verdict, *State, *RunKind, *Action, *Entity, *Condition]
    assert [word for word in words if word not in QUOTED] == []


def test_every_cause_and_reason_has_a_row_with_its_sentence() -> None:
    rows = dict(ROWS)
    assert [word for word in (*Cause, *Condition) if word not in rows] == []
    sentences = {reason: rule.sentence.replace("{}", "…") for reason, rule in REASON_RULES.items()}
    cells = [(key, cell.split("|")[0].strip()) for key, cell in ROWS]
    assert [
        reason for reason, sentence in sentences.items() if (reason, sentence) not in cells
    ] == []


def find_fields(section: type[Section]) -> set[str]:
    names = set(section.model_fields)
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            names |= find_fields(field.annotation)
    return names


def test_every_word_that_the_page_quotes_exists() -> None:
    """Settings, parameters, tasks, tables, columns and words of the vocabulary."""
    columns = set(
        re.findall(
            r"\w+",
            " ".join(
                [*REQUIRED_COLUMNS, *REQUIRED_COLUMNS.values(), *map(str, definition.LEDGER_TABLES)]
            ),
        )
    )
    written_by = (ROOT / "include/directory_sync/joget/ledger/definition.py").read_text(
        encoding="utf-8"
    )
    columns |= set(re.findall(r"\b[a-z]+_[a-z_0-9]+\b", written_by))
    tasks = set(
        re.findall(
            r"def (\w+)\(|task_id=\"(\w+)\"",
            (ROOT / "include/directory_sync/orchestration/dags.py").read_text("utf-8"),
        )
    )
    known = (
        {str(word) for kind in WORDS for word in kind}
        | find_fields(Sync) | find_fields(Run) | find_fields(Parameters)
        | set(Report.model_fields) | columns | {name for pair in tasks for name in pair}
        | {"cognito_aws", "joget_mysql", "cognito_to_joget", "cognito_to_joget_faults"}
        | {"by_sso_alone"}
        | {"nothing_to_do", "dry_run"}
        | {"utf8mb4_unicode_ci"}
    )  # fmt: skip
    quoted = {
        part for word in QUOTED if re.fullmatch(r"[a-z0-9_.]+", word) for part in word.split(".")
    }
    quoted = {word for word in quoted if "_" in word}
    assert sorted(quoted - known) == []
    settings = {word.partition(":")[0] for word in QUOTED if re.fullmatch(r"[a-z_]+: [a-z]+", word)}
    assert settings <= find_fields(Sync)


def test_every_link_of_the_page_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert [link for link in links if link.startswith("#") and link[1:] not in anchors] == []
    files = [link.partition("#")[0] for link in links if not link.startswith("#")]
    assert [name for name in files if not (ROOT / "docs" / name).is_file()] == []


# Commands


def find_blocks(language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)


def find_commands() -> list[str]:
    lines = [line.strip() for block in find_blocks("bash") for line in block.splitlines()]
    return lines + [word for word in QUOTED if word.startswith("airflow ")]


def test_airflow_has_every_command_of_the_page_with_its_options() -> None:
    from airflow.cli.cli_parser import get_parser

    commands = [line for line in find_commands() if line.startswith("airflow ")]
    assert len(commands) > 5
    for line in commands:
        get_parser().parse_args(shlex.split(line)[1:])  # exits where it doesn't know something


def test_every_other_command_of_the_page_is_ours_with_its_options() -> None:
    ours = "python -m directory_sync "
    others = [line for line in find_commands() if not line.startswith("airflow ")]
    assert others
    for line in others:
        assert line.startswith(ours), line
        answer = CliRunner().invoke(app, [*shlex.split(line.removeprefix(ours)), "--help"])
        assert answer.exit_code == 0, line


def test_the_database_runs_every_statement_of_the_page(company: Company) -> None:
    """In the order of the page, which ends with dropping the ledger; a sync works after that
    too.
    """
    company.pool.users = people(2)
    company.run()
    company.joget.execute("DROP USER IF EXISTS 'directory_sync'@'%'")
    company.joget.execute("CREATE USER 'directory_sync'@'%' IDENTIFIED BY 'the old password'")
    for block in find_blocks("sql"):
        for statement in filter(None, (part.strip() for part in block.split(";"))):
            company.joget.execute(statement)
    company.joget.execute("DROP USER 'directory_sync'@'%'")
    assert company.joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'") == []


def test_a_restored_joget_gets_back_what_its_backup_lacks_and_nobody_is_removed(
    company: Company,
) -> None:
    company.pool.users = people(5)
    company.run()
    tables = company.joget.column("SHOW TABLES")
    for table in tables:
        company.joget.execute(f"CREATE TABLE backup_of_{table} LIKE {table}")
        company.joget.execute(f"INSERT INTO backup_of_{table} SELECT * FROM {table}")
    company.pool.users = [*people(5)[1:], *people(2, "new")]
    company.run()
    connection = company.joget.server.connect(company.joget.name)
    with connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"INSERT INTO {table} SELECT * FROM backup_of_{table}")
    connection.close()
    report = company.run()
    assert "the ledger doesn't know the newest run" in report["incomplete_reasons"][0]
    assert len(company.active()) == 7
    assert company.run()["complete"]
