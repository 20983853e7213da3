"""Steps of the queues' schema: each file takes a database from the version before it to its own number.

A step that was released never changes; a new one is a new file.
"""
