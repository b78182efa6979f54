"""Downloads of what runs left behind."""
