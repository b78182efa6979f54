"""How long the pages take: `python -m benchmarks.ui` (`make bench-ui`)."""
