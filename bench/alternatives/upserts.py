"""Upserts of each row's values: mysqlclient's executemany, with one commit at the end."""

from typing import Any

import MySQLdb
import pyarrow.parquet as pq

from bench.alternatives.measure import ORGANIZATION, ROLE, Clock, Target, employment_id, target

USERS = """
    INSERT INTO dir_user (id, username, firstName, lastName, email, active, timeZone, locale)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
    ON DUPLICATE KEY UPDATE username = VALUES(username), firstName = VALUES(firstName),
        lastName = VALUES(lastName), email = VALUES(email), active = VALUES(active),
        timeZone = VALUES(timeZone), locale = VALUES(locale)
"""
GROUPS = """
    INSERT INTO dir_group (id, name, organizationId) VALUES (%s, %s, %s)
    ON DUPLICATE KEY UPDATE name = VALUES(name), organizationId = VALUES(organizationId)
"""
ROLES = """
    INSERT INTO dir_user_role (roleId, userId) VALUES (%s, %s)
    ON DUPLICATE KEY UPDATE roleId = VALUES(roleId)
"""
EMPLOYMENTS = """
    INSERT INTO dir_employment (id, userId, organizationId) VALUES (%s, %s, %s)
    ON DUPLICATE KEY UPDATE userId = VALUES(userId), organizationId = VALUES(organizationId)
"""
MEMBERSHIPS = """
    INSERT INTO dir_user_group (groupId, userId) VALUES (%s, %s)
    ON DUPLICATE KEY UPDATE groupId = VALUES(groupId)
"""


def main() -> None:
    """Write the company and say how long it took."""
    asked, clock = target(), Clock()
    users = _rows(
        asked, "users", "id", "id", "firstName", "lastName", "email", "active", "timeZone", "locale"
    )
    groups = _rows(asked, "groups", "id", "name")
    memberships = _rows(asked, "memberships", "groupId", "userId")
    connection = MySQLdb.connect(
        host="127.0.0.1", port=asked.port, user="root", database=asked.database, charset="utf8mb4"
    )
    with connection.cursor() as cursor:
        cursor.executemany(USERS, users)
        cursor.executemany(GROUPS, [(group, name, ORGANIZATION) for group, name in groups])
        cursor.executemany(ROLES, [(ROLE, user[0]) for user in users])
        cursor.executemany(
            EMPLOYMENTS, [(employment_id(user[0]), user[0], ORGANIZATION) for user in users]
        )
        cursor.executemany(MEMBERSHIPS, memberships)
    connection.commit()
    clock.report()
    connection.close()


def _rows(asked: Target, name: str, *columns: str) -> list[tuple[Any, ...]]:
    table = pq.read_table(asked.rows / f"{name}.parquet")
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


if __name__ == "__main__":
    main()
