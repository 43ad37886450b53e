"""Makes the tables of README and docs from the evidence under results/. Not part of the library."""
