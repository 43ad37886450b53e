"""The run-time type checker of the tests; pyproject.toml names it."""

from beartype import BeartypeConf, beartype

# As in PEP 484, an int will do where a float is annotated.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
