-- Whether a job is for somebody who waits on the line for it: once nobody does, it is withdrawn.
ALTER TABLE job ADD COLUMN attended INTEGER NOT NULL DEFAULT 0;
