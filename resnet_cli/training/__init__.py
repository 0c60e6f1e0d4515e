"""One trainer for every network: the loop, its schedules, its checkpoints, and whole runs."""
