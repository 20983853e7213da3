"""Steps of the schema of the object store's index; see `clary.sqlite_file`.

A step that was released never changes; a new one is a new file.
"""
