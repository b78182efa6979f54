"""Runs: states, lease, supervisor, live stream, pages."""
