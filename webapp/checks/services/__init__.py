"""Use cases of base models, one file each."""
