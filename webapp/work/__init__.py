"""Work for other processes: the outbox, the dispatcher that empties it, and the Celery settings that carry it."""
