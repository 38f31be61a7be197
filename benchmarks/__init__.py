"""Measurements against peers: one file is one command, `python -m benchmarks.<name> [--quick]`."""
