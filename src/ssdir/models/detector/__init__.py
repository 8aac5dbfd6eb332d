"""The SSD detector and the refiner of its boxes."""
