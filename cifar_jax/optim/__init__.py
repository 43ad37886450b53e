"""From gradients to updates: rules by path, the optax chain, schedules, Muon, lookahead."""
