"""`--mode=search`: looks for a better config; each trial is an ordinary training run."""
