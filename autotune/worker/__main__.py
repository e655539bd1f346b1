"""python -m autotune.worker FOLDER: do the job in this folder again, by hand."""

from autotune.worker.main import main

main()
