"""Use cases of artifacts, one file each."""
