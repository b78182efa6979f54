"""Runs side by side: results as a paper has them, what differs between their specs, and why a comparison may not be fair."""
