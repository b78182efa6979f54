"""Experiments: many runs from one form, and the table in which they end."""
