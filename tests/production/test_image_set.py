"""bin/test-image-set, up to the tests themselves: which Python and which constraints it uses."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "sed", "mkdir", "cp", "cat", "cksum", "rm", "grep")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with a uv that writes down its arguments, and a bin folder with a few tools."""
    checkout, path = tmp_path / "checkout", tmp_path / "path"
    for folder in (checkout / "bin", checkout / ".venv/bin", path):
        folder.mkdir(parents=True)
    for name in (
        "bin/test-image-set",
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-image.txt",
    ):
        shutil.copy(ROOT / name, checkout / name)
    provide(checkout / ".venv/bin/uv", UV)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (path / tool).symlink_to(found)
    provide(path / "python3.12", "exit 0")
    provide(path / "curl", "exit 22")
    return tmp_path


UV = """
echo "$@" >>uv.log
case "$1 $2" in
    "pip compile") for last; do :; done; echo pandas==3.0.5 >"$last" ;;
    "pip list") echo "pandas 3.0.5" ;;
    "venv "*) mkdir -p .image-set/venv/bin
              printf '#!/bin/sh\\necho "ran $*"\\n' >.image-set/venv/bin/python
              /bin/chmod +x .image-set/venv/bin/python ;;
esac
"""


def provide(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def run(machine: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(machine / "checkout/bin/test-image-set")],
        env={
            "PATH": str(machine / "path"),
            "HOME": str(machine),
            "AIRFLOW_RELEASED": "2026-09-17T09:00:00Z",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_images_python_it_says_which_it_needs(machine: Path) -> None:
    provide(machine / "path/python3.12", "exit 1")
    done = run(machine)
    assert done.returncode == 1
    assert (
        "no Python 3.12, which the image has. Name one: make test-image-set PYTHON=" in done.stderr
    )


def test_without_airflows_constraints_the_set_is_resolved_as_of_the_release(machine: Path) -> None:
    done = run(machine)
    assert done.returncode == 0, done.stderr
    assert (
        "Constraints: resolved as of 2026-09-17T09:00:00Z, since Airflow's own can't be reached"
        in done.stdout
    )
    compiled, _, installed, _ = (
        (machine / "checkout/uv.log").read_text(encoding="utf-8").splitlines()
    )
    assert "--exclude-newer 2026-09-17T09:00:00Z requirements-image.txt" in compiled
    assert "--constraints .image-set/constraints.txt" in installed
    assert "ran -m pytest" in done.stdout
    assert "tests/directory_sync --ignore=" in done.stdout


def test_named_constraints_are_used_and_a_wrong_name_is_an_error(machine: Path) -> None:
    (machine / "constraints.txt").write_text("pandas==3.0.5\n", encoding="utf-8")
    done = run(machine, CONSTRAINTS=str(machine / "constraints.txt"), SELECTION="tests/faults")
    assert done.returncode == 0, done.stderr
    assert f"Constraints: {machine}/constraints.txt" in done.stdout
    assert "pip compile" not in (machine / "checkout/uv.log").read_text(encoding="utf-8")
    assert "can't be read" in run(machine, CONSTRAINTS="/nowhere/constraints.txt").stderr


def test_constraints_are_asked_for_at_airflows_own_address(machine: Path) -> None:
    provide(
        machine / "path/curl",
        'echo "$@" >curl.log; for last; do :; done; echo pandas==3.0.5 >"$last"',
    )
    assert "Constraints: Airflow's own for 3.3.2" in run(machine).stdout
    asked = (machine / "checkout/curl.log").read_text(encoding="utf-8")
    assert "apache/airflow/constraints-3.3.2/constraints-3.12.txt" in asked


def test_the_image_the_requirements_and_the_set_name_one_airflow(machine: Path) -> None:
    named = [
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("requirements.txt", "requirements-image.txt")
    ]
    assert all("==3.3.2\n" in text for text in named)
    assert "FROM apache/airflow:3.3.2-python3.12\n" in (ROOT / "Dockerfile").read_text(
        encoding="utf-8"
    )
