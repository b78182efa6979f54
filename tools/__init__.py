"""What draws parts of the documentation, and what set-up calls. Not part of the product."""
