"""Data sets: annotations, images, masks, augmentation, generated scenes; reading and writing every layout."""
