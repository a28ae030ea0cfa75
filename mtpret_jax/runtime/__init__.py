"""Everything a run needs around the loop: checkpoints, signals, several processes, logging, data preparation."""
