-- The log of events, what of it is still to be delivered, and how far those who feed the bus have come.
CREATE TABLE events (
  position INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL,
  account TEXT NOT NULL, region TEXT NOT NULL, bus TEXT NOT NULL, event TEXT NOT NULL
);
CREATE INDEX events_of_region ON events (account, region, position);
CREATE TABLE deliveries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, position INTEGER NOT NULL, destination TEXT NOT NULL,
  rule TEXT NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  due_at REAL NOT NULL, given_up TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT ''
);
CREATE INDEX deliveries_due ON deliveries (destination, due_at, id);
CREATE INDEX deliveries_of_event ON deliveries (position);
CREATE TABLE progress (follower TEXT PRIMARY KEY, sequence INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE marks (uid TEXT PRIMARY KEY, mark TEXT NOT NULL) WITHOUT ROWID;
