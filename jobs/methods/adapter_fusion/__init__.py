"""AdapterFusion: attention over the bottleneck adapters of finished runs."""
