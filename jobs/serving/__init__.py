"""Serving: one process that keeps models loaded and answers many requests at once, batched step by step."""
