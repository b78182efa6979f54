"""Use cases of people and teams, one file each."""
