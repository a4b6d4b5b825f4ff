"""What bin/setup-mysql says on machines that lack something; scripts stand in for apt and dpkg."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "cat", "tail", "rm", "mkdir", "grep", "head", "find", "sed", "ln")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout's bin/setup-mysql, and a bin folder without apt and dpkg."""
    (tmp_path / "checkout/bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin/setup-mysql", tmp_path / "checkout/bin/setup-mysql")
    (tmp_path / "path").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "path" / tool).symlink_to(found)
    return tmp_path


def provide(machine: Path, command: str, script: str) -> None:
    path = machine / "path" / command
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def setup_mysql(machine: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(machine / "checkout/bin/setup-mysql")],
        env={"PATH": str(machine / "path"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_apt_it_says_what_needs_it_and_what_does_not(machine: Path) -> None:
    done = setup_mysql(machine)
    assert done.returncode == 1
    assert "there is no apt-get here, and MySQL comes from Debian's packages" in done.stderr
    assert "make test uses MariaDB" in done.stderr


def test_without_a_debian_mirror_it_asks_for_one(machine: Path) -> None:
    provide(machine, "apt-get", "echo http://archive.example.org/ubuntu/")
    provide(machine, "dpkg", "echo amd64")
    done = setup_mysql(machine)
    assert done.returncode == 1
    assert "apt's sources name no Debian mirror" in done.stderr
    assert "DEBIAN_MIRROR=" in done.stderr


def test_a_mirror_that_does_not_answer_is_named_with_the_end_of_apts_output(machine: Path) -> None:
    provide(machine, "apt-get", "echo E: no route; exit 100")
    provide(machine, "dpkg", "echo amd64")
    done = setup_mysql(machine, DEBIAN_MIRROR="http://mirror.example.org/debian")
    assert done.returncode == 1
    assert "E: no route" in done.stderr
    assert "could not read the suite unstable from http://mirror.example.org/debian/" in done.stderr


def test_a_server_that_is_there_already_is_left_alone(machine: Path) -> None:
    (machine / "checkout/.mysql").mkdir()
    (machine / "checkout/.mysql/version").write_text("9.7.4\n", encoding="utf-8")
    done = setup_mysql(machine)
    assert done.returncode == 0
    assert done.stdout == "MySQL 9.7.4 is in .mysql already.\n"
