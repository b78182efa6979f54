"""Use cases of files, one a file."""
