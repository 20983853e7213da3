"""The event bus: patterns, what targets are sent, and the durable log of events and of their deliveries."""
