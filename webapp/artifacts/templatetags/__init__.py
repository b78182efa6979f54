"""Template tags of what comes of what."""
