"""Around a run: devices, processes, checkpoints, files of the workdir, signals, settings."""
