"""docker-compose.yaml as docker compose reads it: anchors merged, variables filled in."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text(encoding="utf-8"))
AIRFLOW_SERVICES = sorted(name for name in COMPOSE["services"] if name.startswith("airflow-"))
IMAGE_ROOT = "/opt/airflow"


def read_env_file(path: Path) -> dict[str, str]:
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def interpolate(text: str, variables: dict[str, str]) -> str:
    """A value as docker compose reads it: ${A}, ${A:-default}, ${A:?message}, and $$ for $."""

    def replaced(found: re.Match[str]) -> str:
        name, operator, rest = found["name"], found["operator"], found["rest"]
        if variables.get(name):
            return variables[name]
        if operator == ":?":
            raise LookupError(f"{name}: {rest}")
        return rest or ""

    pattern = r"(?<!\$)\$\{(?P<name>\w+)(?:(?P<operator>:[-?])(?P<rest>[^}]*))?\}"
    return re.sub(pattern, replaced, text).replace("$$", "$")


def environment(service: str, variables: dict[str, str]) -> dict[str, str]:
    merged = COMPOSE["services"][service]["environment"]
    return {name: interpolate(str(value), variables) for name, value in merged.items()}
