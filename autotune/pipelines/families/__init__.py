"""Families: the pipelines that can be named by a word. One file for each family, with its presets."""
