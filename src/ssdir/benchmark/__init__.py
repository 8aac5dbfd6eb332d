"""What things cost, in time and memory, measured beside each other."""
