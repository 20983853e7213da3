-- Resources, the labels by which they are found, and the events of every write.
CREATE TABLE resources (
  kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
  uid TEXT NOT NULL, spec TEXT NOT NULL, status TEXT NOT NULL, phase TEXT NOT NULL,
  generation INTEGER NOT NULL, created_at REAL NOT NULL, modified_at REAL NOT NULL,
  due_at REAL, labels TEXT NOT NULL,
  lease TEXT NOT NULL DEFAULT '', lease_expires_at REAL NOT NULL DEFAULT 0,
  touches INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, account, region, name)
) WITHOUT ROWID;
CREATE INDEX resources_due ON resources (kind, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX resources_created ON resources (kind, account, region, created_at, name);
CREATE TABLE labels (
  name TEXT NOT NULL, value TEXT NOT NULL, kind TEXT NOT NULL, account TEXT NOT NULL,
  region TEXT NOT NULL, resource TEXT NOT NULL,
  PRIMARY KEY (name, value, kind, account, region, resource)
) WITHOUT ROWID;
CREATE TABLE events (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,
  kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL,
  change TEXT NOT NULL, phase TEXT NOT NULL, previous_phase TEXT NOT NULL, status TEXT NOT NULL
);
