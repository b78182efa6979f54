"""Measurements of Graft against what everybody uses. Not part of the product: nothing of `jobs` or `webapp` imports it."""
