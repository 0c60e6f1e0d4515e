"""One trainer for every network: the training loop, schedules, checkpoints and whole runs."""
