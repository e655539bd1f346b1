"""Tuning: everything that runs configs to answer a question: search, confirm, ablate, compare, verify, selftest."""
