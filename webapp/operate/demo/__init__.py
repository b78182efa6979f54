"""The main job without a browser: a visitor that signs in, uploads, launches, follows and downloads over HTTP and WebSocket alone."""
