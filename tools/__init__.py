"""Beside the library: the tables of the README, from the evidence under results/."""
