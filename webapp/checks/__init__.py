"""What a base model makes of the rows of a dataset version: rows as it sees them, and how long they are in its tokens."""
