"""Benchmarks against other engines; see README.md for the commands."""
