"""What the plugin tells Airflow about the pages, and what it imports in each of Airflow's
processes.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse, FastAPIAppResponse

from directory_sync import pages
from directory_sync.orchestration import plugin
from tests.conftest import ROOT


def find_new_modules(statement: str, after: str) -> set[str]:
    """Find the modules that a statement imports in a new process, besides those that are there
    already.
    """
    code = (
        f"import sys; {after}; before = set(sys.modules); {statement}; print(*(set(sys.modules) - "
        "before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/include:{ROOT}/plugins"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_airflow_finds_each_tab_valid() -> None:
    views = [ExternalViewResponse.model_validate(view) for view in plugin.list_views()]
    assert [(view.name, view.destination, view.url_route) for view in views] == [
        ("Directory changes", "dag_run", "directory-changes"),
        ("Directory", "dag", "directory"),
    ]
    for view in views:
        assert view.href.startswith("/directory-sync/dags/{DAG_ID}")
    for app in plugin.list_apps():
        FastAPIAppResponse.model_validate({**app, "app": repr(app["app"])})


def test_tabs_follow_an_airflow_below_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow/")
    assert {view["href"].split("{")[0] for view in plugin.list_views()} == {
        "/airflow/directory-sync/dags/"
    }


def test_the_plugin_imports_nothing_heavy_until_somebody_asks_for_a_page() -> None:
    new = find_new_modules("import directory_sync_pages", after="import airflow.plugins_manager")
    assert "directory_sync.orchestration.plugin" in new
    heavy = {"pandas", "pyarrow", "numpy", "fastapi", "jinja2"}
    assert {name.split(".")[0] for name in new} & heavy == set()
    assert {name for name in new if name.startswith("directory_sync.")} == {
        "directory_sync.orchestration",
        "directory_sync.orchestration.plugin",
    }


def test_the_pages_know_neither_jogets_database_nor_the_pool() -> None:
    new = find_new_modules(
        "import directory_sync.pages.routes", after="import airflow.plugins_manager"
    )
    assert "directory_sync.pages.user_explanation" in new
    assert not {name for name in new if name.split(".")[0] in ("MySQLdb", "pymysql", "mysql")}
    assert not {
        name
        for name in new
        if name.startswith(("directory_sync.joget", "directory_sync.cognito.client"))
    }


def test_the_charting_library_is_the_version_that_the_documents_name() -> None:
    folder = Path(pages.__file__).parent / "static"
    chart = (folder / "chart.umd.min.js").read_bytes()
    version = chart[:200].decode().split("Chart.js v")[1].split()[0]
    assert f"(https://www.chartjs.org) {version}" in (ROOT / "docs" / "pages.md").read_text(
        encoding="utf-8"
    )
    assert (
        hashlib.sha256(chart).hexdigest()
        == "c17f2ce49fb9c71ef7fb39c03f868804ac5ab34730149976eebe6b7f807bef0c"
    )
    assert "MIT" in (folder / "chart.js-LICENSE.md").read_text(encoding="utf-8")
