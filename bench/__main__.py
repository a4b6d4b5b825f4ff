"""How fast the sync is, beside the floor that nothing can beat, and beside what people would use
instead: `python -m bench`.
"""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from bench import extraction, loading
from bench.results import Measured, Results, console
from bench.world import world
from demo import airflow
from demo.world import world as demo_world

HERE = Path(__file__).parent
ALTERNATIVES = HERE.parent / ".venv-alternatives"
SMALL, MIDDLE, LARGE = 10_000, 100_000, 1_000_000


def main() -> int:
    """Measure and write results.md."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--million", action="store_true", help="1,000,000 users too: half an hour in all"
    )
    parser.add_argument(
        "--only",
        choices=["extraction", "loading", "demo"],
        help="a part; results.md stays as it is",
    )
    asked = parser.parse_args()
    logging.disable(logging.INFO)
    results = Results()
    if asked.only in (None, "demo"):
        _demo(results)
    with world(extraction.RATE) as here:
        if asked.only in (None, "extraction"):
            extraction.measure(here, results, SMALL, 0.15, chain=True)
            extraction.measure(here, results, MIDDLE, 0.05, chain=False)
            extraction.measure(here, results, MIDDLE, 0.15, chain=True)
        if asked.only in (None, "loading"):
            python = _python_of_alternatives()
            sizes = [SMALL, MIDDLE, *([LARGE] if asked.million else [])]
            for people in sizes:
                loading.measure(here, results, people, python, patience=max(people / 500, 300))
            if asked.million:
                loading.judge_growth(results, MIDDLE, LARGE)
    remarks = (HERE / "remarks.md").read_text(encoding="utf-8")
    results.write(
        HERE.parent / "build" / "bench.md" if asked.only else HERE / "results.md", remarks
    )
    return 0


def _demo(results: Results) -> None:
    """The demo's run through Airflow: what its tasks did themselves, after Airflow had started
    them.
    """
    with demo_world() as demo:
        log = demo.folder / "airflow.log"
        airflow.migrate(demo.airflow, log)
        airflow.run_dag(demo.airflow, log)
        timings = demo.newest_report()["timings"]
    for task, seconds in timings.items():
        results.add(Measured("the demo's Airflow run", 2, f"ours: {task}", seconds))
        results.within(f"the demo's run: {task}", seconds, 1, "s")


def _python_of_alternatives() -> Path:
    """The interpreter of the alternatives' own .venv: their packages don't fit beside Airflow's."""
    python = ALTERNATIVES / "bin" / "python"
    if not python.exists():
        console.print(f"Making {ALTERNATIVES.name} …")
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run(
            [uv, "venv", "--quiet", "--python", sys.executable, str(ALTERNATIVES)], check=True
        )
        lock = str(HERE / "alternatives" / "requirements.lock")
        install = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "--require-hashes",
            "-r",
            lock,
        ]
        subprocess.run(install, check=True)
    return python


if __name__ == "__main__":
    sys.exit(main())
