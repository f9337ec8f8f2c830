"""A recipe's stages, in order: `train.train` is the table of contents."""
