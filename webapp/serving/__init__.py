"""Asking models: the worker that serves them, and the way there and back."""
