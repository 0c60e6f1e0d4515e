"""Run an experiment, alone, in shards or with Ray, and repeat one from its provenance."""
