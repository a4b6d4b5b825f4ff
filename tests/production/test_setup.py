"""What bin/setup says on machines that lack something; scripts stand in for the commands that it
looks for.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "sh",
    "dirname",
    "id",
    "cksum",
    "cut",
    "tr",
    "sed",
    "cat",
    "tail",
    "mktemp",
    "rm",
    "env",
    "awk",
    "printf",
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout's bin/setup and lock, and a bin folder with a few tools and this Python."""
    (tmp_path / "checkout/bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin/setup", tmp_path / "checkout/bin/setup")
    shutil.copy(ROOT / "requirements.lock", tmp_path / "checkout/requirements.lock")
    (tmp_path / "path").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "path" / tool).symlink_to(found)
    provide(tmp_path, "python3", f'exec {sys._base_executable} "$@"')  # type: ignore[attr-defined]
    return tmp_path


def provide(machine: Path, command: str, script: str) -> None:
    path = machine / "path" / command
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def complete(machine: Path) -> None:
    """Everything that mysqlclient and the demo need."""
    for command in ("cc", "pkg-config", "mariadbd"):
        provide(machine, command, "exit 0")


def setup(machine: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(machine / "checkout/bin/setup")],
        env={"PATH": str(machine / "path"), "HOME": str(machine), **variables},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def test_without_a_fitting_python_it_says_which_one_to_install_and_how(machine: Path) -> None:
    provide(machine, "python3", "exit 1")
    done = setup(machine)
    assert done.returncode == 1
    assert "no Python 3.11, 3.12 or 3.13 on PATH" in done.stderr
    assert "docker compose" in done.stderr


def test_a_python_that_was_named_and_does_not_fit_is_refused(machine: Path) -> None:
    assert (
        "PYTHON=/nowhere/python is no working Python"
        in setup(machine, PYTHON="/nowhere/python").stderr
    )


def test_missing_packages_without_apt_are_named_with_their_reasons_and_one_command(
    machine: Path,
) -> None:
    done = setup(machine)
    assert done.returncode == 1
    for package in ("gcc", "pkg-config", "libmariadb-dev"):
        assert f"  {package}: " in done.stdout
    assert "sudo apt-get install gcc pkg-config libmariadb-dev" in done.stderr
    assert "docker compose" in done.stderr


def test_missing_packages_are_installed_without_a_question_if_there_is_apt_and_no_terminal(
    machine: Path,
) -> None:
    provide(machine, "id", "echo 0")
    install = (
        'case "$1" in install) cp "$0" "$(dirname "$0")/cc"; cp "$0" "$(dirname '
        '"$0")/pkg-config";; esac'
    )
    provide(machine, "apt-get", f'echo "$@" >> {machine}/apt.log; {install}')
    provide(machine, "cp", f'exec {shutil.which("cp")} "$@"')
    provide(machine, "python3.13", "exit 1")
    done = setup(machine)
    asked = (machine / "apt.log").read_text(encoding="utf-8")
    assert asked.startswith("install -y --no-install-recommends gcc pkg-config libmariadb-dev")
    assert "Installed gcc pkg-config libmariadb-dev" in done.stdout


def test_a_failing_apt_is_reported_with_its_log(machine: Path) -> None:
    provide(machine, "id", "echo 0")
    provide(machine, "apt-get", "echo 'E: Unable to locate package'; exit 100")
    done = setup(machine)
    assert done.returncode == 1
    assert "Unable to locate package" in done.stderr
    assert "apt-get could not install" in done.stderr


def test_a_second_run_finds_its_stamp_and_does_nothing(machine: Path) -> None:
    complete(machine)
    venv = machine / "checkout/.venv/bin"
    make = f"mkdir -p {venv}; {shutil.which('cp')} {machine}/path/quiet {venv}/python"
    provide(machine, "mkdir", f'exec {shutil.which("mkdir")} "$@"')
    provide(machine, "quiet", "exit 0")
    provide(machine, "uv", f"echo uv $1 $2 >> {machine}/uv.log")
    make += f"; {shutil.which('cp')} {machine}/path/uv {venv}/uv"
    python = sys._base_executable  # type: ignore[attr-defined]
    provide(
        machine,
        "python3",
        f'[ "$1 $2" = "-m venv" ] && {{ {make}; exit 0; }}; exec {python} "$@"',
    )
    first, second = setup(machine), setup(machine)
    assert "Set-up is done: everything is in .venv." in first.stdout
    assert second.stdout == "Set-up is done already: .venv fits requirements.lock.\n"
    assert (machine / "uv.log").read_text(encoding="utf-8") == "uv pip install\n"
    (machine / "checkout/requirements.lock").write_text("", encoding="utf-8")
    assert "Making .venv" in setup(machine).stdout, "another lock is another set-up"


def test_the_makefile_lists_its_targets() -> None:
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    assert {"setup", "demo", "up", "test", "test-mysql"} <= {
        line.split()[1] for line in done.stdout.splitlines()
    }
