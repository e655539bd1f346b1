"""How a study is shown. Words and rounding live here; the numbers themselves stay raw everywhere else."""
