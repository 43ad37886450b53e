"""Pages about finished and unfinished runs: `--mode=report`."""
