"""Conversations in, columns of scores out: steered, explained, with what is known of their uncertainty."""
