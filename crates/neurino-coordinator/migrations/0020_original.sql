-- Miners of the original protocol are paid at one address and sign with another key. The first key
-- whose result was paid is bound to the address for good.

CREATE TABLE original_binding (
    reward      TEXT PRIMARY KEY,
    identity    TEXT NOT NULL,
    bound_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
