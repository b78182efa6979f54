"""The method catalogue: `entry` (types), `registry` (the literal list), one folder for each mechanism.

Everything but the `apply` modules is free of torch, so that a web process can draw a form from it.
"""
