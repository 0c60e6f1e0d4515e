"""What every package uses: devices, threads, processes, seeding, interrupts, display, errors."""
