"""Sample data and specs."""
