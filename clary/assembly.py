"""The only place that picks implementations and wires the roles together."""
