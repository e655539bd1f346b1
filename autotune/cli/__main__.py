"""Main: `python -m autotune.cli` is the console script."""

from autotune.cli import main

main()
