"""What all other packages use: device, threads, processes, seeding, interrupts, display, errors."""
