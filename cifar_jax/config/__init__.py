"""What a run is told: keys, their defaults and checks, config files, one line per fault."""
