"""A whole site on one machine: what its processes are (`commands`), how one is kept alive (`child`), how all start and stop (`site`)."""
