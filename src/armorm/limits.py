"""The largest numbers that a setting or an option may be.

In: nothing.  Out: numbers; `armorm.bounds` makes types of them.  Cost: none, so that the command line starts at once.
"""

MOST_ROWS = 10**9
"""More rows than any file has."""
MOST_TOKENS = 10**7
"""More tokens than any decoder has positions, or any batch has room for."""
