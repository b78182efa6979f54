"""How fast the rows of a large file are checked: `make bench-validate`."""
