"""Tuning: runs configs to answer a question: search, confirm, ablate, compare, verify. Read search.py first."""
