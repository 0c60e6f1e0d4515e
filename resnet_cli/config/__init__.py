"""The YAML schema, and experiments by name."""
