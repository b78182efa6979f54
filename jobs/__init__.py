"""Graft's engine: fine-tunes a language model from a spec and gives events and files.

A plain library and a program (`python -m jobs`). It never imports Django, Celery or Redis, and it does not know who asked.
"""

__version__ = "0.1.0"
