"""BOFT: the inputs of each layer are rotated by a product of sparse rotations."""
