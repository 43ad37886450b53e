"""Optimization: rules by path, the optax chain, schedules, Muon, lookahead, early stopping."""
