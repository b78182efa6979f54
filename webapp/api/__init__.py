"""OpenAI's fine-tuning API at `/v1`, and our own automation API in the same style."""
