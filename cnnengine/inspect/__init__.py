"""Opens a kernel up without a GPU: source, machine code, registers, occupancy, roofline, counters (docs/inspect.md)."""
