"""Keys: two texts have the same key exactly if Joget's own database calls them equal."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from directory_sync.joget.schema import JogetTables
from tests.conftest import JogetDatabase

TRICKY = "aAáÁâbBsSßẞeéÉ\u0301\u200d\u00ad ﬁfiⅫXII\uff111\u0131Iiİ日本\t.-_@" + "🎉😀"
COLLATIONS = {"utf8mb4": "utf8mb4_unicode_ci", "utf8mb3": "utf8mb3_unicode_ci"}


@pytest.fixture(scope="module", params=sorted(COLLATIONS))
def connection(
    request: pytest.FixtureRequest, new_joget: Callable[[str], JogetDatabase]
) -> Iterator[Any]:
    database = new_joget(request.param)
    opened = database.server.connect(database.name)
    with opened.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE pair (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(255), b VARCHAR(255))"
        )
    yield request.param, opened
    opened.close()


@settings(max_examples=300)
@given(st.text(TRICKY, max_size=5), st.text(TRICKY, max_size=5))
def test_two_texts_have_one_key_exactly_if_the_database_calls_them_equal(
    connection: Any, a: str, b: str
) -> None:
    charset, opened = connection
    if charset == "utf8mb3":
        a, b = (text.replace("🎉", "").replace("😀", "") for text in (a, b))
    with opened.cursor() as cursor:
        space = (
            f"SELECT HEX(WEIGHT_STRING(CONVERT(' ' USING {charset}) COLLATE {COLLATIONS[charset]}))"
        )
        cursor.execute(space)
        tables = JogetTables(
            charset, COLLATIONS[charset], cursor.fetchone()[0], "ROLE_USER", "ORG-001", (), {}
        )
        cursor.execute("DELETE FROM pair")
        cursor.execute("INSERT INTO pair (a, b) VALUES (%s, %s)", (a, b))
        cursor.execute(
            f"SELECT a = b, a = '', b = '', {tables.key('a')}, {tables.key('b')} FROM pair"
        )
        same, a_is_nothing, b_is_nothing, a_key, b_key = cursor.fetchone()
    assert (a_key is None, b_key is None) == (bool(a_is_nothing), bool(b_is_nothing))
    if a_key is not None:
        assert bool(same) == (a_key == b_key)
