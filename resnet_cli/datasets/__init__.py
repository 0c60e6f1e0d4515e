"""Data sets: finding, reading, downloading and normalising them, and making batches."""
