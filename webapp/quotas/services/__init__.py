"""Use cases of quotas."""
