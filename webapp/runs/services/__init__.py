"""What can be done with a run: one use case a file, used alike by pages, commands and tasks."""
