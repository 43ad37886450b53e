"""What a run needs around it: devices, processes, checkpoints, workdir files, signals, settings."""
