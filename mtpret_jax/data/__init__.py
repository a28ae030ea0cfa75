"""From prepared archives to batches: numpy, grain and tfds only. Worker processes import this; it never imports jax."""
