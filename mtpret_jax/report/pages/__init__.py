"""What the page of each kind of run shows. Each module turns the files of a run into sections."""
