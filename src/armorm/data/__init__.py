"""Raw rows → validated rows, split by prompt."""
