"""Settings: `base` for every site, `test` for the test suite; `env` reads the environment."""
