"""The official `openai` client against a real server."""
