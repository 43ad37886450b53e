"""Measures speed side by side with other libraries: `make bench`. Not part of the library."""
