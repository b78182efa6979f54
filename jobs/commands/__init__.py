"""The commands of `python -m jobs`, one module each: `HELP`, `add_arguments(parser)`, `run(arguments) -> int`."""
