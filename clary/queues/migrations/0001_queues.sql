-- Queues, their messages, and what FIFO queues have seen lately.
CREATE TABLE queues (
  id INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
  attributes TEXT NOT NULL, tags TEXT NOT NULL, created_at REAL NOT NULL, modified_at REAL NOT NULL,
  messages INTEGER NOT NULL DEFAULT 0,
  UNIQUE (account, region, name)
);
CREATE TABLE messages (
  position INTEGER PRIMARY KEY AUTOINCREMENT, queue_id INTEGER NOT NULL, message_id TEXT NOT NULL,
  body TEXT NOT NULL, attributes TEXT NOT NULL, sender TEXT NOT NULL, trace TEXT NOT NULL,
  group_id TEXT NOT NULL, deduplication_id TEXT NOT NULL, source TEXT NOT NULL DEFAULT '',
  sent_at REAL NOT NULL, visible_at REAL NOT NULL, expires_at REAL NOT NULL,
  receipt TEXT NOT NULL DEFAULT '', receive_count INTEGER NOT NULL DEFAULT 0, first_received_at REAL
);
CREATE INDEX messages_in_order ON messages (queue_id, position);
CREATE INDEX messages_visible ON messages (queue_id, visible_at);
CREATE INDEX messages_expiring ON messages (queue_id, expires_at);
CREATE INDEX messages_of_group ON messages (queue_id, group_id, position) WHERE group_id != '';
CREATE TABLE deduplications (
  queue_id INTEGER NOT NULL, scope TEXT NOT NULL, deduplication_id TEXT NOT NULL, until REAL NOT NULL,
  message_id TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (queue_id, scope, deduplication_id)
) WITHOUT ROWID;
