"""Use cases of the API that the pages do not have."""
