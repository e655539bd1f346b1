"""Recordings: measured search spaces as tables (Parquet), and earlier studies read for a warm start."""
