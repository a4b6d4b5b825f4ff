"""A company whose sync reaches Joget's database through a proxy that tests command."""

from collections.abc import Iterator

import pytest

from tests.between import Between, between
from tests.company import Company
from tests.conftest import JogetDatabase


@pytest.fixture
def line(
    joget: JogetDatabase, company: Company, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Between]:
    """The line between the sync and the database server."""
    with between(joget.server.port) as proxy:
        # Without encryption, so that the proxy can read the statements.
        uri = f"mysql://root:@127.0.0.1:{proxy.port}/{joget.name}?ssl_mode=DISABLED"
        monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", uri)
        yield proxy
