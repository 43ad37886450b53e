"""`--mode=search`: looks for a better config; each trial is an ordinary training run."""

COSTS = ("parameters", "multiply_adds")  # known of a config before training
LIMITED = (*COSTS, "step_ms", "minutes")  # config.search has a limit max_... for each

# What a search leaves in its workdir.
BEST, TABLE, PARETO, WORKERS = "best.py", "trials.csv", "pareto.json", "workers.json"
FRONT = "pareto"  # the directory of the configs of the trials in PARETO
