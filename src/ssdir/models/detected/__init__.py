"""Models that encode the objects of a frozen detector."""
