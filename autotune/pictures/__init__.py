"""What a call of a pipeline draws: pictures, and clips of frames."""
