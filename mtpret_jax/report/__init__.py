"""What a finished run prints and draws."""
