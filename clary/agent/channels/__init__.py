"""Channels: how the data a job asks for gets to where its program looks for it."""
