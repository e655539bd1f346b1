"""Worker: the child's side of a trial. Reads job.json, does the job, writes outcome.json."""
