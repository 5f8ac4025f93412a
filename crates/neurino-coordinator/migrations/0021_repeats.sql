-- A picture that is handed in is looked up among those that were paid.

CREATE INDEX picture_sha256 ON picture (sha256);
