-- Files of models whose pieces can be checked: the roots of their Merkle trees, measured by whoever runs the
-- network on a copy of his own.
CREATE TABLE file_root (
    model      TEXT COLLATE "C" NOT NULL,
    -- Its name in the catalogue.
    file       TEXT COLLATE "C" NOT NULL,
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    sha256     TEXT NOT NULL,
    root       TEXT NOT NULL,
    PRIMARY KEY (model, file)
);

CREATE TRIGGER file_root_changed AFTER INSERT OR UPDATE OR DELETE ON file_root
FOR EACH ROW EXECUTE FUNCTION settings_changed();
