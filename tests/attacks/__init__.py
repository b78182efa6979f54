"""Attacks, each as a test: files and models in `files`, requests and sockets in `web`."""
