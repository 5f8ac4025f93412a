-- Units of nodes: which card, group or part of a card an attempt runs on. Without a value the node announced
-- none, and is one.
ALTER TABLE attempt ADD COLUMN unit INTEGER CHECK (unit BETWEEN 0 AND 255);
-- Whether a model may be computed on a part of a card, beside strangers' work.
ALTER TABLE pod ADD COLUMN shareable INTEGER NOT NULL DEFAULT 0 CHECK (shareable IN (0, 1));
