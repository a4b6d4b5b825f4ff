-- The rights of the sync's account in MySQL 8 or MariaDB 10.6 and later.
--
-- Replace jwdb by Joget's schema, and '%' by the address of Airflow's workers. Create the account
-- first, with a password of its own:
--
--   CREATE USER 'directory_sync'@'%' IDENTIFIED BY '...' REQUIRE SSL;

-- Part 1. Each sync needs these rights on Joget's tables.

GRANT SELECT, INSERT, UPDATE ON jwdb.dir_user TO 'directory_sync'@'%';
GRANT SELECT, INSERT, UPDATE ON jwdb.dir_group TO 'directory_sync'@'%';
GRANT SELECT, INSERT, DELETE ON jwdb.dir_user_group TO 'directory_sync'@'%';
GRANT SELECT, INSERT ON jwdb.dir_user_role TO 'directory_sync'@'%';
GRANT SELECT, INSERT ON jwdb.dir_employment TO 'directory_sync'@'%';
GRANT SELECT ON jwdb.dir_role TO 'directory_sync'@'%';
GRANT SELECT ON jwdb.dir_organization TO 'directory_sync'@'%';
GRANT CREATE TEMPORARY TABLES ON jwdb.* TO 'directory_sync'@'%';

-- Part 2. Each sync needs these rights on its own tables, the ledger. CREATE lets the first run
-- create them, and ALTER lets a new version change one. If a DBA does both, neither is needed: the
-- run that finds a table missing or old prints the statements.

GRANT CREATE, ALTER, SELECT, INSERT, UPDATE ON jwdb.directory_sync_lock TO 'directory_sync'@'%';
GRANT CREATE, ALTER, SELECT, INSERT, UPDATE, DELETE ON jwdb.directory_sync_user_link TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON jwdb.directory_sync_group_link TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, UPDATE, DELETE ON jwdb.directory_sync_local_membership TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, DELETE ON jwdb.directory_sync_retired_login TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, DELETE ON jwdb.directory_sync_decision TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, UPDATE ON jwdb.directory_sync_review TO 'directory_sync'@'%';
GRANT CREATE, ALTER, SELECT, INSERT, UPDATE ON jwdb.directory_sync_run TO 'directory_sync'@'%';
GRANT CREATE, SELECT, INSERT, DELETE ON jwdb.directory_sync_delay TO 'directory_sync'@'%';

-- Part 3. Deleting (missing_user: delete, missing_group: delete), renaming (renamed_user: rename, or
-- an approved rename) and undoing need these rights as well.

GRANT DELETE ON jwdb.dir_user TO 'directory_sync'@'%';
GRANT DELETE ON jwdb.dir_group TO 'directory_sync'@'%';
GRANT UPDATE ON jwdb.dir_user_group TO 'directory_sync'@'%';
GRANT UPDATE, DELETE ON jwdb.dir_user_role TO 'directory_sync'@'%';
GRANT UPDATE, DELETE ON jwdb.dir_employment TO 'directory_sync'@'%';
GRANT SELECT, UPDATE ON jwdb.dir_department TO 'directory_sync'@'%';
GRANT SELECT, DELETE ON jwdb.dir_employment_report_to TO 'directory_sync'@'%';
GRANT SELECT, UPDATE, DELETE ON jwdb.dir_user_meta TO 'directory_sync'@'%';
GRANT SELECT, UPDATE, DELETE ON jwdb.dir_user_extra TO 'directory_sync'@'%';
GRANT SELECT, UPDATE, DELETE ON jwdb.dir_user_password_history TO 'directory_sync'@'%';
GRANT SELECT, UPDATE, DELETE ON jwdb.dir_user_replacement TO 'directory_sync'@'%';
