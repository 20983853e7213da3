"""AWS Security Token Service: who a caller is, and temporary credentials."""
