"""The parts of the simulator: how simulated people, their tissue and their scans are made."""
