"""Study: asks Optuna for the next config, keeps the trials, and decides which of them are best."""
