"""The schema of experiment files, and finding experiments by name."""
