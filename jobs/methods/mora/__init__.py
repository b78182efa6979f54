"""MoRA: a square matrix of high rank in the place of LoRA's two thin ones."""
