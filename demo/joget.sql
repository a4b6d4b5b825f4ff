-- Joget DX 8's directory tables and a fresh directory, for demo and tests. Charset and collation are the database's.

CREATE TABLE dir_organization (
    id VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255), parentId VARCHAR(255),
    PRIMARY KEY (id), FOREIGN KEY (parentId) REFERENCES dir_organization (id)
) ENGINE=InnoDB;

CREATE TABLE dir_role (
    id VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255),
    PRIMARY KEY (id)
) ENGINE=InnoDB;

CREATE TABLE dir_user (
    id VARCHAR(255) NOT NULL, username VARCHAR(255), password VARCHAR(255), firstName VARCHAR(255),
    lastName VARCHAR(255), email VARCHAR(255), active INT, timeZone VARCHAR(255), locale VARCHAR(255),
    PRIMARY KEY (id)
) ENGINE=InnoDB;

CREATE TABLE dir_group (
    id VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255), organizationId VARCHAR(255),
    PRIMARY KEY (id), FOREIGN KEY (organizationId) REFERENCES dir_organization (id)
) ENGINE=InnoDB;

CREATE TABLE dir_user_group (
    groupId VARCHAR(255) NOT NULL, userId VARCHAR(255) NOT NULL,
    PRIMARY KEY (userId, groupId),
    FOREIGN KEY (groupId) REFERENCES dir_group (id), FOREIGN KEY (userId) REFERENCES dir_user (id)
) ENGINE=InnoDB;

CREATE TABLE dir_user_role (
    roleId VARCHAR(255) NOT NULL, userId VARCHAR(255) NOT NULL,
    PRIMARY KEY (userId, roleId),
    FOREIGN KEY (roleId) REFERENCES dir_role (id), FOREIGN KEY (userId) REFERENCES dir_user (id)
) ENGINE=InnoDB;

CREATE TABLE dir_grade (
    id VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255), organizationId VARCHAR(255),
    PRIMARY KEY (id), FOREIGN KEY (organizationId) REFERENCES dir_organization (id)
) ENGINE=InnoDB;

CREATE TABLE dir_department (
    id VARCHAR(255) NOT NULL, name VARCHAR(255), description VARCHAR(255), organizationId VARCHAR(255),
    hod VARCHAR(255), parentId VARCHAR(255),
    PRIMARY KEY (id),
    FOREIGN KEY (organizationId) REFERENCES dir_organization (id), FOREIGN KEY (parentId) REFERENCES dir_department (id)
) ENGINE=InnoDB;

CREATE TABLE dir_employment (
    id VARCHAR(255) NOT NULL, userId VARCHAR(255), startDate DATE, endDate DATE, employeeCode VARCHAR(255),
    role VARCHAR(255), gradeId VARCHAR(255), departmentId VARCHAR(255), organizationId VARCHAR(255),
    PRIMARY KEY (id),
    FOREIGN KEY (gradeId) REFERENCES dir_grade (id), FOREIGN KEY (departmentId) REFERENCES dir_department (id),
    FOREIGN KEY (organizationId) REFERENCES dir_organization (id), FOREIGN KEY (userId) REFERENCES dir_user (id)
) ENGINE=InnoDB;

ALTER TABLE dir_department ADD FOREIGN KEY (hod) REFERENCES dir_employment (id);

CREATE TABLE dir_employment_report_to (
    employmentId VARCHAR(255) NOT NULL, reportToId VARCHAR(255) NOT NULL, id VARCHAR(255),
    PRIMARY KEY (employmentId, reportToId),
    FOREIGN KEY (employmentId) REFERENCES dir_employment (id), FOREIGN KEY (reportToId) REFERENCES dir_employment (id)
) ENGINE=InnoDB;

CREATE TABLE dir_user_meta (
    username VARCHAR(255) NOT NULL, meta_key VARCHAR(255) NOT NULL, meta_value LONGTEXT,
    PRIMARY KEY (username, meta_key)
) ENGINE=InnoDB;

CREATE TABLE dir_user_extra (
    username VARCHAR(255) NOT NULL, algorithm VARCHAR(255), loginAttempt INT, failedloginAttempt INT,
    lastLogedInDate DATETIME, lockOutDate DATETIME, lastPasswordChangeDate DATETIME, requiredPasswordChange BIT(1),
    noPasswordExpiration BIT(1),
    PRIMARY KEY (username)
) ENGINE=InnoDB;

CREATE TABLE dir_user_password_history (
    id VARCHAR(255) NOT NULL, username VARCHAR(255), salt VARCHAR(255), password VARCHAR(255), updatedDate DATETIME,
    PRIMARY KEY (id)
) ENGINE=InnoDB;

CREATE TABLE dir_user_replacement (
    id VARCHAR(255) NOT NULL, username VARCHAR(255), replacementUser VARCHAR(255), appId VARCHAR(255),
    processIds VARCHAR(4000), startDate DATETIME, endDate DATETIME,
    PRIMARY KEY (id)
) ENGINE=InnoDB;

INSERT INTO dir_organization (id, name, description) VALUES ('ORG-001', 'Joget', 'The demo organization');
INSERT INTO dir_role (id, name, description) VALUES
    ('ROLE_ADMIN', 'Admin', 'Administrator'), ('ROLE_USER', 'User', 'Normal user');
INSERT INTO dir_user (id, username, password, firstName, lastName, email, active, timeZone, locale) VALUES
    ('admin', 'admin', '21232f297a57a5a743894a0e4a801fc3', 'Admin', 'Admin', 'admin@example.org', 1, '0', NULL),
    ('cat', 'cat', 'd077f244def8a70e5ea758bd8352fcd8', 'Cat', 'Grant', 'cat@example.org', 1, '0', NULL);
INSERT INTO dir_user_role (roleId, userId) VALUES
    ('ROLE_ADMIN', 'admin'), ('ROLE_USER', 'admin'), ('ROLE_USER', 'cat');
INSERT INTO dir_group (id, name, description, organizationId) VALUES
    ('managers', 'Managers', 'A group of Joget''s own', 'ORG-001');
INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', 'cat');
INSERT INTO dir_employment (id, userId, organizationId, employeeCode) VALUES
    ('4028cb811d3b4d2b011d3b4d8a5f0001', 'cat', 'ORG-001', 'E-7');
INSERT INTO dir_user_meta (username, meta_key, meta_value) VALUES ('cat', 'theme', 'dark');
