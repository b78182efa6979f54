"""Template tags of people and teams."""
