"""A run: its story, its loop, its steps, its state, its test."""
