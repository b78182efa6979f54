"""Prompts: a few virtual tokens before every row are trained, and nothing of the model."""
