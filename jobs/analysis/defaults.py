"""How much an analysis looks at where nothing else is asked for. Free of torch, so that a form or a command can name it."""

# Mini-batches.
BATCHES = 6
# Singular values of a layer.
DIRECTIONS = 64
# Widths of the base.
BITS = (16, 8, 4)
# The `method` event that tells what was found, and the file with all of it.
EVENT = "analysis"
FILE = "analysis.json"
