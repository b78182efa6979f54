"""Uploads, datasets and their immutable versions."""
