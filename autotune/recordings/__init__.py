"""Recordings: measured search spaces as Parquet tables, and earlier studies for a warm start."""
