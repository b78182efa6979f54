"""Operating a site: preparing it, running its processes, demonstrating it. The top of the stack: it composes every app."""
