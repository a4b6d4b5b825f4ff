"""The package that `pip install` gives brings three DAGs and both tabs to an Airflow that isn't
ours.
"""

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

FOREIGN_DAG = """
from airflow.sdk import DAG
from include.theirs import NAME

with DAG(NAME):
    pass
"""
"""A DAG such as many projects have: it imports from an include/ of its own."""

BUNDLES = [
    {
        "name": "dags-folder",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {},
    },
    {
        "name": "directory-sync",
        "classpath": "directory_sync.orchestration.bundle.DirectorySyncBundle",
        "kwargs": {},
    },
]

SHOWS_WHAT_AIRFLOW_FINDS = """
import json
from airflow import plugins_manager
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag
from airflow.providers_manager import ProvidersManager
import directory_sync

bags = {}
for bundle in DagBundlesManager().get_all_dag_bundles():
    bundle.initialize()
    bags[bundle.name] = DagBag(dag_folder=str(bundle.path))
apps, _ = plugins_manager.get_fastapi_plugins()
views, _ = plugins_manager._get_ui_plugins()
print("ANSWER", json.dumps({
    "package": directory_sync.__file__,
    "dags": {name: sorted(bag.dags) for name, bag in bags.items()},
    "errors": [error for bag in bags.values() for error in bag.import_errors.values()],
    "apps": [app["url_prefix"] for app in apps],
    "tabs": sorted(view["name"] for view in views),
    "provider": ProvidersManager().providers["directory-sync"].version,
}))
"""


def run(command: list[str], **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], env=uv_path())
    [built] = folder.glob("*.whl")
    return built


def uv_path() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel. The packages that the wheel requires come from the
    tests' own environment.
    """
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], env=uv_path())
    interpreter = folder / "bin/python"
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", str(interpreter)]
    run([*install, str(wheel)], env=uv_path())
    [site] = folder.glob("lib/python*/site-packages")
    (site / "required.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return interpreter


def test_an_airflow_with_dags_and_an_include_of_its_own_gets_our_dags_and_tabs(
    python: Path, tmp_path: Path
) -> None:
    for folder in ("dags", "include", "plugins"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dags/theirs.py").write_text(FOREIGN_DAG, encoding="utf-8")
    (tmp_path / "include/theirs.py").write_text("NAME = 'theirs'\n", encoding="utf-8")
    environment = {
        "PATH": f"{python.parent}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(BUNDLES),
        "DIRECTORY_SYNC_CONFIG": str(ROOT / "demo/syncs.yaml"),
    }
    said = run([str(python), "-c", SHOWS_WHAT_AIRFLOW_FINDS], env=environment, cwd=tmp_path)
    answer = json.loads(said.rpartition("ANSWER ")[2])
    assert answer.pop("package").startswith(str(python.parent.parent))
    assert answer == {
        "dags": {
            "dags-folder": ["theirs"],
            "directory-sync": [
                "cognito_to_joget",
                "cognito_to_joget_review",
                "cognito_to_joget_undo",
            ],
        },
        "errors": [],
        "apps": ["/directory-sync"],
        "tabs": ["Directory", "Directory changes"],
        "provider": "0.1.0",
    }


def test_the_command_line_comes_with_the_package(python: Path, tmp_path: Path) -> None:
    said = run([str(python.parent / "directory-sync"), "--help"], cwd=tmp_path, env={})
    assert "detach" in said


def test_the_tested_versions_fit_the_ranges_that_the_package_requires(python: Path) -> None:
    [found] = python.parent.parent.glob("lib/python*/site-packages/directory_sync-*.dist-info")
    required = [Requirement(text) for text in Distribution.at(found).requires or ()]
    assert {str(one.specifier) for one in required if one.name == "apache-airflow"} == {"<4,>=3.3"}
    assert len(required) > 5
    for one in required:
        assert "==" not in str(one.specifier)
        assert one.specifier.contains(version(one.name)), one
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    assert {one.name for one in required} == listed
