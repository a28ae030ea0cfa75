"""Builders of the datasets, one folder each; the commands `build`, `inspect`, `leakage`, `unpack` and `phantoms`."""
