"""Building: from a pipeline and a config to a live pipe, in measurement and in production alike."""
