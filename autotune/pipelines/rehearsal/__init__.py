"""Rehearsal: a call of a pipe with empty weights. It shows what traits can't be read off classes."""
