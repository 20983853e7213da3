CREATE TABLE buckets (
  name TEXT PRIMARY KEY, account TEXT NOT NULL, region TEXT NOT NULL, created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE settings (
  bucket TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;

-- Keys are UTF-8 bytes, so that their order is S3's.
CREATE TABLE objects (
  bucket TEXT NOT NULL, key BLOB NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
  modified_at REAL NOT NULL, details TEXT NOT NULL, PRIMARY KEY (bucket, key)
) WITHOUT ROWID;

CREATE TABLE uploads (
  id TEXT PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL, started_at REAL NOT NULL,
  options TEXT NOT NULL, completed TEXT
) WITHOUT ROWID;

CREATE INDEX uploads_of_bucket ON uploads (bucket, key, id);

CREATE TABLE parts (
  upload TEXT NOT NULL, number INTEGER NOT NULL, blob TEXT NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, modified_at REAL NOT NULL, checksums TEXT NOT NULL, PRIMARY KEY (upload, number)
) WITHOUT ROWID;
