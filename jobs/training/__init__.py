"""The training loop and its parts: order, batches, packed attention, loss, schedule, checkpoints. One loop serves every method."""
