"""Code for all packages: devices, threads, processes, seeding, interrupts, display, errors."""
