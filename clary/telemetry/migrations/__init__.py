"""Steps of the schema of logs and metric points: each file takes a database to its own number.

A step that was released never changes; a new one is a new file.
"""
