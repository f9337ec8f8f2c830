"""The fitted parts put together: score, contributions, save and load."""
