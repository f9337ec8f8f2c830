"""Every attack by its name.

In: nothing.  Out: `ATTACKS`.  Cost: none.
"""

from __future__ import annotations

from tests.torture.attack import Attack
from tests.torture.damage import Cuts, Flips
from tests.torture.kills import Kills, Signals

ATTACKS: dict[str, type[Attack]] = {one.name: one for one in (Kills, Signals, Flips, Cuts)}
