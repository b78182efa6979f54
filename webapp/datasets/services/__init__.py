"""Use cases of uploads and datasets, one file each."""
