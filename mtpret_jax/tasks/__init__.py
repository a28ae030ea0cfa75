"""What is asked of an image."""
