"""Attacks by requests, sockets, sessions and tokens: rows A35 to A67 and A72 of docs/security.md."""
