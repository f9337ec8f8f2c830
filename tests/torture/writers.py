"""Two processes on one output; threads on one model.

In: a job, the moment at which the second begins.  Out: `Outcome`s.  Cost: two or three runs of the job.
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.torture.attack import Attack
from tests.torture.children import Child
from tests.torture.numbers import SUMS, differing, numbers
from tests.torture.outcomes import Outcome

OFTEN = {"train": 5, "score-jsonl": 4, "score-gz": 2, "score-parquet": 4, "bench": 2, "audit": 2, "tune": 2}
ONCE = ("export", "select", "pairs")
"""Commands that write over nothing, their own output neither."""
OWNER = re.compile(r"\bprocess \d+|\bpid \d+|\(\d+\)", re.IGNORECASE)
THREADS = 8


class Writers(Attack):
    """The same command twice: both end right, or one is told who is at it; what is there in the end is right."""

    name, weight = "writers", 2.0

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        names = list(self.world.jobs)
        job = self.world.jobs[draw.choices(names, [OFTEN.get(name, 1) for name in names])[0]]
        later = draw.choice((0.0, draw.random(), draw.random()))
        shared = job.name == "train" and draw.random() < 0.4
        with self.world.folder() as place:
            self.world.place_of(job, place)
            words = [job.words, job.words]
            if shared:
                words = [(*job.words[:-1], f"run{n}", "--features", "features") for n in ("", "2")]
            how = {"job": job.name, "features shared": shared, "second after": round(later, 3)}
            one = Child(words[0], place, name="one")
            one.runs(later * self.world.durations[job.name])
            two = Child(words[1], place, name="two")
            ends = [child.wait(2 * self.limit_of(job.name)) for child in (one, two)]
            kind = f"{job.name}{', shared features' if shared else ''}"
            rss = max(ended.rss for ended in ends)
            for ended in ends:
                if ended.verdict in ("ok", "refused") and (ended.verdict == "ok" or OWNER.search(ended.err)):
                    continue
                if ended.verdict == "refused" and job.name in ONCE and "is there already" in ended.err:
                    continue  # the other had finished
                told = {**how, "said": ended.err[-1500:]}
                verdict = {"hang": "hang", "refused": "unnamed"}.get(ended.verdict, "traceback")
                yield Outcome(verdict, kind, ended.told, told, ended.rss)
            if all(ended.verdict != "ok" for ended in ends):
                return
            known = self.world.numbers[job.name]
            if shared:
                known = {name: value for name, value in known.items() if name != SUMS and not name.startswith("features/")}
            now = {name: value for name, value in numbers(place / job.leaves).items() if not shared or name != SUMS}
            wrong = differing(known, now) if ends[0].verdict == "ok" or not shared else []
            refused = [ended for ended in ends if ended.verdict == "refused"]
            if wrong:
                yield Outcome("silent", kind, f"differs: {', '.join(wrong[:4])}", how, rss)
            elif refused:
                yield Outcome("refused", kind, refused[0].error or "error", how, rss)
            else:
                yield Outcome("survived", kind, "", how, rss)


class Threads(Attack):
    """Eight threads that share one model: every score is the one that a thread alone gets, to the bit."""

    name, weight = "threads", 1.0
    ways = ("score", "list", "exact", "explain", "profile")

    def attack(self, draw: random.Random) -> Iterator[Outcome]:
        way = draw.choice(self.ways)
        count, seed = draw.choice((4, 8)), draw.randrange(1 << 30)
        with self.world.folder() as place:
            model = str(self.world.golden / "train" / "run" / "model")
            ended = self.world.do(lambda: _compete(model, way, count, seed), place, limit=90)
            how = {"way": way, "conversations": count, "said": ended.err[-1500:]}
        if ended.verdict != "ok":
            verdict = ended.verdict if ended.verdict in ("hang", "refused") else "traceback"
            yield Outcome(verdict, way, ended.told, how, ended.rss)
            return
        found = json.loads(ended.out.strip().splitlines()[-1])
        for verdict in ("survived", "silent", "traceback"):
            if found[verdict]:
                yield Outcome(verdict, way, found["told"] if verdict != "survived" else "", how, ended.rss, found[verdict])


def _compete(model: str, way: str, count: int, seed: int) -> None:
    """Prints how many calls of the threads gave what one thread gives."""
    import armorm

    loaded, draw = armorm.RewardModel.from_pretrained(model), random.Random(seed)
    conversations = [
        [
            {"role": "user", "content": f"What is {n} + {n}?"},
            {"role": "assistant", "content": "so " * draw.randint(1, 30) + "it is"},
        ]
        for n in range(count)
    ]
    call = _way(loaded, way, conversations)
    serial = [call(n) for n in range(count)]
    found: dict[str, Any] = {"survived": 0, "silent": 0, "traceback": 0, "told": ""}
    sys.setswitchinterval(1e-5)  # threads take turns in the middle of everything
    lock, start = threading.Lock(), threading.Barrier(THREADS)

    def work() -> None:
        start.wait()
        for n in random.Random(threading.get_ident()).sample(range(count), count):
            try:
                verdict, told = ("survived", "") if call(n) == serial[n] else ("silent", "another score than alone")
            except Exception as error:
                verdict, told = "traceback", f"{type(error).__name__}: {error}"[:200]
            with lock:
                found[verdict] += 1
                found["told"] = found["told"] or told

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(found))


def _way(model: Any, way: str, conversations: list[Any]) -> Callable[[int], object]:
    if way == "list":
        return lambda n: [score.score for score in model.score(conversations[n:] + conversations[:n])]
    if way == "exact":
        return lambda n: model.engine(exact=True).score([conversations[n], conversations[0]]).scores.tolist()
    if way == "explain":
        return lambda n: repr(model.explain(conversations[n]))
    if way == "profile":
        from armorm.scoring.profile import Profile

        profiles = [None, Profile(drop=("panel-verbosity",)), Profile(weights={"judge-quality": 1.0}, blend=0.5)]
        return lambda n: model.score(conversations[n], profile=profiles[n % 3]).score
    return lambda n: repr(model.score(conversations[n]))
