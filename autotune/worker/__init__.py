"""Worker: the child's side of a job. It reads job.json, runs the job, and writes outcome.json."""
