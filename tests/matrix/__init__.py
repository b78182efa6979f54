"""Every method on every task and base that it claims: `python -m tests.matrix`, and `make methods-matrix`."""
