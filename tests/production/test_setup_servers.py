"""What bin/setup-servers does on machines that lack something; scripts stand in for the
commands.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "dirname", "cat", "tail", "rm", "mv", "mkdir", "head", "find", "tr")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout's bin/setup-servers, and a bin folder without apt, dpkg and servers."""
    (tmp_path / "checkout/bin").mkdir(parents=True)
    shutil.copy(ROOT / "bin/setup-servers", tmp_path / "checkout/bin/setup-servers")
    (tmp_path / "path").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "path" / tool).symlink_to(found)
    return tmp_path


def provide(machine: Path, command: str, script: str = "exit 0") -> None:
    path = machine / "path" / command
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def setup_servers(machine: Path) -> "subprocess.CompletedProcess[str]":
    nowhere = str(machine / "nowhere")
    return subprocess.run(
        [str(machine / "checkout/bin/setup-servers")],
        env={"PATH": str(machine / "path"), "POSTGRESQL_ROOT": nowhere},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_has_both_servers_is_left_alone(machine: Path) -> None:
    for program in ("initdb", "redis-server", "redis-cli"):
        provide(machine, program)
    done = setup_servers(machine)
    assert (done.returncode, done.stdout) == (0, "")
    assert not (machine / "checkout/.servers").exists()


def test_without_apt_it_names_what_is_missing(machine: Path) -> None:
    provide(machine, "initdb")
    done = setup_servers(machine)
    assert done.returncode == 1
    assert "missing: redis-server. There is no apt-get here" in done.stderr


def test_sources_that_do_not_answer_are_reported_with_the_end_of_apts_output(machine: Path) -> None:
    provide(machine, "apt-get", "echo E: no route; exit 100")
    provide(machine, "dpkg")
    done = setup_servers(machine)
    assert done.returncode == 1
    assert "E: no route" in done.stderr
    assert "install postgresql redis-server yourself" in done.stderr


def test_packages_are_downloaded_and_unpacked_and_none_is_installed(machine: Path) -> None:
    provide(machine, "initdb")
    archive = "$folder/cache/archives/redis.deb"
    provide(
        machine,
        "apt-get",
        f'echo "$@" >> {machine}/apt.log; folder=${{2%/apt.conf}}; echo > {archive}',
    )
    programs = "mkdir -p $3/usr/bin; cp $(command -v redis) $3/usr/bin/redis-server"
    provide(machine, "dpkg", f'echo "$1" >> {machine}/dpkg.log; {programs}')
    provide(machine, "redis", "echo Redis server v=7.0.15")
    provide(machine, "cp", f'exec {shutil.which("cp")} "$@"')
    done = setup_servers(machine)
    assert done.stdout.endswith("In .servers: Redis server v=7.0.15 \n"), done.stderr
    installs = (machine / "apt.log").read_text(encoding="utf-8").splitlines()[1]
    assert "install --download-only" in installs
    assert installs.endswith("redis-server")
    assert (machine / "dpkg.log").read_text(encoding="utf-8") == "-x\n"
    again = setup_servers(machine)
    assert again.stdout == "In .servers already: Redis server v=7.0.15 \n"
