"""Bottleneck adapters, in a row or in parallel, and Compacter: one implementation."""
