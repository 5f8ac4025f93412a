-- Files of models whose pieces can be checked: the roots of their Merkle trees, measured by whoever runs the
-- network on a copy of his own.
CREATE TABLE file_root (
    model      TEXT NOT NULL,
    -- Its name in the catalogue.
    file       TEXT NOT NULL,
    size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
    sha256     TEXT NOT NULL,
    root       TEXT NOT NULL,
    PRIMARY KEY (model, file)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER file_root_added AFTER INSERT ON file_root BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER file_root_changed AFTER UPDATE ON file_root BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
CREATE TRIGGER file_root_removed AFTER DELETE ON file_root BEGIN
    UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'settings_version';
END;
