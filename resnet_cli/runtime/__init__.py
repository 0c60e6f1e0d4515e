"""What every room stands on: device, threads, processes, seeding, interrupts, display, errors."""
