"""Finished adapters of one base made into one, measured and left for download as a run leaves its own: `compose.execute`."""
