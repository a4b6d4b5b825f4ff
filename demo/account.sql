-- The demo's account, before docs/joget-grants.sql gives it its rights.
CREATE USER IF NOT EXISTS 'directory_sync'@'%' IDENTIFIED BY 'demo';
