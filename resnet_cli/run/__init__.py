"""Carry out an experiment, alone, in shards or with Ray, and again from its provenance."""
