"""Entry point of `python -m autotune.worker FOLDER`: run the job in this folder, also by hand."""

from autotune.worker.main import main

main()
