"""pandas and SQLAlchemy: to_sql into staging tables, then one INSERT ... SELECT for each table.

Staging has the database's default charset and collation, which are those of Joget's tables.
"""

import pandas as pd
from sqlalchemy import Engine, Integer, String, create_engine, text

from bench.alternatives.measure import ORGANIZATION, ROLE, Clock, Target, employment_id, target

MERGES = {
    "dir_user": """
        INSERT INTO dir_user (id, username, firstName, lastName, email, active, timeZone, locale)
        SELECT id, username, firstName, lastName, email, active, timeZone, locale
        FROM staging_dir_user
        ON DUPLICATE KEY UPDATE username = VALUES(username), firstName = VALUES(firstName),
            lastName = VALUES(lastName), email = VALUES(email), active = VALUES(active),
            timeZone = VALUES(timeZone), locale = VALUES(locale)
    """,
    "dir_group": """
        INSERT INTO dir_group (id, name, organizationId)
        SELECT id, name, organizationId FROM staging_dir_group
        ON DUPLICATE KEY UPDATE name = VALUES(name), organizationId = VALUES(organizationId)
    """,
    "dir_user_role": """
        INSERT IGNORE INTO dir_user_role (roleId, userId)
        SELECT roleId, userId FROM staging_dir_user_role
    """,
    "dir_employment": """
        INSERT INTO dir_employment (id, userId, organizationId)
        SELECT id, userId, organizationId FROM staging_dir_employment
        ON DUPLICATE KEY UPDATE userId = VALUES(userId), organizationId = VALUES(organizationId)
    """,
    "dir_user_group": """
        INSERT IGNORE INTO dir_user_group (groupId, userId)
        SELECT groupId, userId FROM staging_dir_user_group
    """,
}


def main() -> None:
    """Write the company and say how long it took."""
    asked, clock = target(), Clock()
    engine = create_engine(asked.uri())
    for name, frame in _frames(asked).items():
        _stage(engine, name, frame)
    with engine.begin() as connection:
        for merge in MERGES.values():
            connection.execute(text(merge))
    with engine.begin() as connection:
        for name in MERGES:
            connection.execute(text(f"DROP TABLE staging_{name}"))
    clock.report()
    engine.dispose()


def _frames(asked: Target) -> dict[str, pd.DataFrame]:
    users = pd.read_parquet(asked.rows / "users.parquet")
    groups = pd.read_parquet(asked.rows / "groups.parquet")
    employments = pd.DataFrame({"id": users["id"].map(employment_id), "userId": users["id"]})
    return {
        "dir_user": users.assign(username=users["id"]),
        "dir_group": groups.assign(organizationId=ORGANIZATION),
        "dir_user_role": pd.DataFrame({"userId": users["id"]}).assign(roleId=ROLE),
        "dir_employment": employments.assign(organizationId=ORGANIZATION),
        "dir_user_group": pd.read_parquet(asked.rows / "memberships.parquet"),
    }


def _stage(engine: Engine, name: str, frame: pd.DataFrame) -> None:
    types = {column: Integer() if column == "active" else String(255) for column in frame.columns}
    frame.to_sql(
        f"staging_{name}", engine, if_exists="replace", index=False, chunksize=10_000, dtype=types
    )


if __name__ == "__main__":
    main()
