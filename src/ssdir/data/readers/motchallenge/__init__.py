"""The MOTChallenge layout."""
