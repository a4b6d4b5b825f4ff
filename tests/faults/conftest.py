"""A company with a sync that reaches Joget's database through a proxy that tests control."""

from collections.abc import Iterator

import pytest

from tests.company import Company
from tests.conftest import JogetDatabase
from tests.database_proxy import DatabaseProxy, open_proxy


@pytest.fixture
def proxy(
    joget: JogetDatabase, company: Company, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatabaseProxy]:
    """The proxy between the sync and the database server."""
    with open_proxy(joget.server.port) as proxy:
        # Without encryption, so that the proxy can read the statements.
        uri = f"mysql://root:@127.0.0.1:{proxy.port}/{joget.name}?ssl_mode=DISABLED"
        monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", uri)
        yield proxy
