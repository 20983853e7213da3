-- Log groups, streams and events; metric series and their points.
CREATE TABLE groups (
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
  created_at INTEGER NOT NULL, retention_days INTEGER,
  UNIQUE (account, region, name)
);
CREATE TABLE streams (
  id INTEGER PRIMARY KEY, group_id INTEGER NOT NULL, name TEXT NOT NULL, created_at INTEGER NOT NULL,
  first_event_at INTEGER, last_event_at INTEGER, last_ingestion_at INTEGER,
  bytes INTEGER NOT NULL DEFAULT 0,
  UNIQUE (group_id, name)
);
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT, stream_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,
  ingested_at INTEGER NOT NULL, message TEXT NOT NULL
);
CREATE INDEX events_of_stream ON events (stream_id, position);
CREATE TABLE series (
  id INTEGER PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, namespace TEXT NOT NULL,
  name TEXT NOT NULL, dimensions TEXT NOT NULL,
  UNIQUE (account, region, namespace, dimensions, name)
);
CREATE TABLE points (
  id INTEGER PRIMARY KEY, series_id INTEGER NOT NULL, at REAL NOT NULL, total REAL NOT NULL,
  count REAL NOT NULL, minimum REAL, maximum REAL, unit TEXT NOT NULL, step INTEGER
);
CREATE INDEX points_of_series ON points (series_id, at);
