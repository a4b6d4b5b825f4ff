"""A short soak: the sync is killed at random moments, and always recovers."""

from pathlib import Path

from demo.database import DatabaseServer
from soak.office import office

KILLS = 12


def test_whatever_stage_is_killed_joget_is_as_before_or_as_after_and_the_next_run_converges(
    database_server: DatabaseServer, tmp_path: Path
) -> None:
    with office(database_server, "joget_soak", tmp_path, seed=20261125) as worked:
        step = 0
        while len(worked.kills) < KILLS:
            step += 1
            worked.take_step(step)
        assert {kill.outcome for kill in worked.kills} <= {"as before", "as after"}
