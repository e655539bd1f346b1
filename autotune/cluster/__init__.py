"""Cluster: one search on many cards at the same time, and a fleet of searches, on Ray."""
