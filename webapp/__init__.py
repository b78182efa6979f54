"""Graft's control plane: Django, Channels and the Celery app. It never imports torch."""
