"""What every app may use; no models."""
