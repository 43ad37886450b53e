"""Configs: the schema of their keys, config files, overrides and checks."""
