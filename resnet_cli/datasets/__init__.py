"""Data sets: how they are found, read, downloaded, normalised and made into batches."""
