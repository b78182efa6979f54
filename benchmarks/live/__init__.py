"""A thousand pages that look on, at one web process: `make bench-live`."""
