"""Serving models to pages and programs."""
