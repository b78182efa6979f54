"""Files of rows: reading, recognising, validating, splitting. Everything but `encoding` is free of torch and transformers.

A user's file is parsed in a bounded child process (`python -m jobs sniff | preview | validate`), never in a web process.
"""
