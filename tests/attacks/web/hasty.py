"""The web server with seconds in the place of its patience: `python -m tests.attacks.web.hasty`, with the options of uvicorn."""

from __future__ import annotations

import uvicorn

from webapp.core import body_limit, server

if __name__ == "__main__":
    server.HEADER_SECONDS = 1.0
    server.UNREAD_SECONDS = 1.5
    body_limit.PATIENCE_SECONDS = 1.0
    uvicorn.main()
