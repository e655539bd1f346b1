"""Tuning: what runs configs to answer a question: search, confirm, ablate, compare, verify, selftest. See search.py."""
