"""What a SQL statement reads and writes, by sqlglot's parser.

sqlglot has a dialect for MySQL and none for MariaDB. The statements are the same for both servers,
and every test sends them to one of each; the parser tells what a statement reads and writes.
"""

import ast
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import sqlglot
from sqlglot import exp

import directory_sync

OURS = "directory_sync_"

WRITABLE = {
    "dir_user": {"Insert", "Update", "Delete"},
    "dir_group": {"Insert", "Update", "Delete"},
    "dir_user_group": {"Insert", "Update", "Delete"},
    "dir_user_role": {"Insert", "Update", "Delete"},
    "dir_employment": {"Insert", "Update", "Delete"},
    "dir_department": {"Update"},
    "dir_employment_report_to": {"Delete"},
    "dir_user_meta": {"Update", "Delete"},
    "dir_user_extra": {"Update", "Delete"},
    "dir_user_password_history": {"Update", "Delete"},
    "dir_user_replacement": {"Update", "Delete"},
}
"""What the sync may do to Joget's tables; design.md's rules ask for no more."""

LOAD = re.compile(
    r"LOAD DATA LOCAL INFILE '[\w./-]+' INTO TABLE (\w+) CHARACTER SET utf8mb4 \([\w, ]+\)( SET "
    r".*)?"
)
NOT_IN_SQLGLOT = (
    "DO 0",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    "SHOW VARIABLES LIKE 'wsrep_load_data_splitting'",
)
"""Statements that sqlglot doesn't know yet, besides LOAD DATA."""

KNOWN = (
    *(exp.Query, exp.Insert, exp.Update, exp.Delete),
    *(exp.Create, exp.Alter, exp.Drop),
    *(exp.Set, exp.Transaction, exp.Commit, exp.Rollback),
)

GENERATED = re.compile(r"\$\[\d+\]")
"""JSON paths of JSON_TABLE's columns."""

SOURCE = "\n".join(
    node.value
    for path in sorted(Path(directory_sync.__path__[0]).rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
)
"""Every text in the product's code."""


@dataclass(frozen=True)
class Statement:
    """A statement as the product sends it, with marks for its parameters."""

    text: str

    @cached_property
    def tree(self) -> exp.Expr:
        """The syntax tree; raises ParseError unless the parser understands the whole statement."""
        text = self.text.strip().replace("%s", "?")
        # sqlglot knows neither REPLACE, which has the grammar of INSERT, nor this part of
        # JSON_TABLE.
        text = re.sub(r"^REPLACE\b", "INSERT", text).replace(" ERROR ON ERROR", "")
        (tree,) = sqlglot.parse(text, read="mysql", error_level=sqlglot.ErrorLevel.RAISE)
        if not isinstance(tree, KNOWN) or tree.find(exp.Command):
            raise sqlglot.ParseError("it is no statement that is known here")
        return tree

    @cached_property
    def tables(self) -> dict[str, str]:
        """Names of tables, by the aliases that the statement gives them."""
        return {table.alias_or_name: table.name for table in self.tree.find_all(exp.Table)}

    @property
    def reads_rows(self) -> bool:
        """Whether the server looks for rows, so that it can explain how."""
        tree = self.tree
        inserts = isinstance(tree, exp.Insert) and isinstance(tree.expression, exp.Select)
        return inserts or (
            isinstance(tree, exp.Select | exp.Update | exp.Delete) and bool(tree.find(exp.Table))
        )

    @property
    def written(self) -> set[str]:
        """The tables that it inserts into, updates, deletes from, creates, alters or drops."""
        tree = self.tree
        if isinstance(tree, exp.Update):
            columns = [assignment.this for assignment in tree.expressions]
            return {
                self.tables[column.table] if column.table else tree.this.name for column in columns
            }
        if isinstance(tree, exp.Delete) and tree.args.get("tables"):
            return {self.tables[table.name] for table in tree.args["tables"]}
        if isinstance(tree, exp.Drop):
            return {table.name for table in tree.args["tables"]}
        if isinstance(tree, exp.Insert | exp.Delete | exp.Create | exp.Alter):
            return {tree.this.find(exp.Table).name}
        return set()


@cache
def find_faults(text: str) -> tuple[str, ...]:
    """What is wrong with a statement that the product sends."""
    if text in NOT_IN_SQLGLOT:
        return ()
    if text.startswith("LOAD DATA"):
        loaded = LOAD.fullmatch(text)
        if loaded and (loaded[1].startswith(OURS) or "Insert" in WRITABLE.get(loaded[1], ())):
            return ()
        return ("loads into a table where the sync inserts nothing",)
    statement = Statement(text)
    try:
        tree = statement.tree
    except sqlglot.ParseError as error:
        return (f"isn't understood: {error}",)
    kind = type(tree).__name__
    faults = [
        f"may not {kind.lower()} {table}"
        for table in statement.written
        if not table.startswith(OURS) and kind not in WRITABLE.get(table, ())
    ]
    if isinstance(tree, exp.Update | exp.Delete) and not tree.args.get("where"):
        faults.append(f"{kind.lower()}s without WHERE")
    literals = [literal.this for literal in tree.find_all(exp.Literal) if literal.is_string]
    faults += [
        f"has a text that stands nowhere in the code: {literal!r}"
        for literal in literals
        if literal not in SOURCE and not GENERATED.fullmatch(literal)
    ]
    return tuple(faults)
