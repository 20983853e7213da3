"""The embedded object store: blobs in files, their index in SQLite."""
