"""Shipped test tools: conformance suites for every contract, and a running server for tests."""
