"""The papers' table: every initialisation, task, share of the labels and seed, each in a run of its own."""
