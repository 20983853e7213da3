-- Events are searched by their own time; groups carry tags and what they were created with.
CREATE INDEX events_by_time ON events (stream_id, timestamp);
ALTER TABLE groups ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE groups ADD COLUMN class TEXT NOT NULL DEFAULT 'STANDARD';
ALTER TABLE groups ADD COLUMN kms_key_id TEXT;
