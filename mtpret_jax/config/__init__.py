"""What a config may hold, checked before a run; earlier configs; what `--help` prints."""
