"""The commands of `manage.py` that prepare, start and demonstrate a site."""
