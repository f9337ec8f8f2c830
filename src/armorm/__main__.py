"""`python -m armorm`, for launchers that start modules.

In: arguments.  Out: what the command line gives.
"""

from armorm.cli import main

if __name__ == "__main__":
    main()
