"""Recordings: a measured space as one table (Parquet), and earlier studies read for a warm start."""
