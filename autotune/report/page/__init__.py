"""Page: a study, a merge or a replay as one self-contained HTML file."""
