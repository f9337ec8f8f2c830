"""Every attack by its name.

In: nothing.  Out: `ATTACKS`.  Cost: none.
"""

from __future__ import annotations

from tests.torture.attack import Attack
from tests.torture.damage import Cuts, Flips
from tests.torture.disks import Disks
from tests.torture.kills import Kills, Signals
from tests.torture.models import Configs, Headers, Templates
from tests.torture.rows import Rows
from tests.torture.serve import Serve
from tests.torture.settings import Profiles, Recipes, Trained
from tests.torture.strays import Strays
from tests.torture.writers import Threads, Writers

KINDS_OF_HITS: tuple[type[Attack], ...] = (Kills, Signals, Disks, Writers, Threads, Strays)
KINDS_OF_DAMAGE: tuple[type[Attack], ...] = (Flips, Cuts)
KINDS_OF_INPUT: tuple[type[Attack], ...] = (Rows, Recipes, Trained, Profiles, Configs, Headers, Templates, Serve)
ATTACKS = {one.name: one for one in (*KINDS_OF_HITS, *KINDS_OF_DAMAGE, *KINDS_OF_INPUT)}
