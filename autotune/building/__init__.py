"""Building: make a live pipe from a pipeline and a config, in measurement and in production alike."""
