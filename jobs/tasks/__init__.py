"""Tasks: what a model is trained for. `entry` and `registry` are free of torch; the other modules are what a run does for each."""
