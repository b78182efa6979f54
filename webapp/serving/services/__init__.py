"""Use cases of serving."""
