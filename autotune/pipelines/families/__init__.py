"""Families: the pipelines that have a short name. One file per family, with its PRESETS."""
