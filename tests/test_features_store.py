"""Stores of features: found again, resumed to the same bytes, refused when damaged, reused between sources."""

from __future__ import annotations

import dataclasses
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from armorm.conversation import Renderer
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.errors import CheckpointError, StorageError
from armorm.features import store
from armorm.features.backbone import load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.features.store import ExtractionSettings, Known, open_store, store_features, store_key
from armorm.objectives import Objective, Objectives

SETTINGS = ExtractionSettings(
    response=FeatureSpec.parse("2:mean+final:last").parts,
    prompt=FeatureSpec.parse("2:last").parts,
    max_tokens=128,
    store_dtype="float32",
    shard_rows=3,
    batch_tokens=200,
)
BOTH = FeatureSpec.parse("2:mean+final:last")
PROMPT = FeatureSpec.parse("2:last")
FINAL = FeatureSpec.parse("final:last")


def rated(n=8):
    return [
        RatedResponse(
            id=f"r{i}",
            group=f"g{i % 3}",
            source="rated",
            messages=(
                {"role": "user", "content": f"question {i % 3}"},
                {"role": "assistant", "content": f"answer {i} " * (1 + i)},
            ),
            ratings={"help": float(i % 5)} | ({"safe": 1.0} if i % 2 else {}),
        )
        for i in range(n)
    ]


def pairs(n=5, *, long=False):
    """The chosen answers are those of `rated`, to the same prompts."""
    return [
        PreferencePair(
            id=f"p{i}",
            group=f"g{i % 3}",
            source="pairs",
            context=({"role": "user", "content": f"question {i % 3}"},),
            chosen=f"answer {i} " * (1 + i),
            rejected="word " * 200 if long else f"no {i}",
        )
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    return load_backbone(str(tiny_folder), dtype="float32", device="cpu")


@pytest.fixture
def load(backbone):
    return lambda: (backbone, Renderer(backbone.tokenizer, max_tokens=SETTINGS.max_tokens))


def never():
    raise AssertionError("nothing has to be computed")


def result_bytes(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir()) if f.name != "timings.jsonl"}


def stored(folder, rows, load, settings=SETTINGS, **options):
    return store_features(folder, "src", rows, load, "finger", settings, **options)


# -- round trip --------------------------------------------------------------------------------------------------------


def test_what_is_stored_reads_back(tmp_path, load):
    rows = rated()
    backbone, renderer = load()
    want = extract([r.messages for r in rows], backbone, renderer, response=SETTINGS.response, prompt=SETTINGS.prompt)
    got = stored(tmp_path, rows, load)
    assert (len(got), got.sides, got.manifest["shards"]) == (8, ("response",), 3)
    np.testing.assert_allclose(
        got.features("response", BOTH), np.hstack([want.response["2:mean"], want.response["final:last"]]), atol=1e-5
    )
    np.testing.assert_allclose(got.features("prompt", PROMPT), want.prompt["2:last"], atol=1e-5)
    assert got.tokens("response").tolist() == want.response_tokens.tolist()
    assert got.tokens("prompt").tolist() == want.prompt_tokens.tolist()
    assert [i for b in got.blocks() for i in b.ids] == [r.id for r in rows]
    groups = [g for f in sorted(got.folder.glob("shard-*.json")) for g in json.loads(f.read_text())["groups"]]
    assert groups == [r.group for r in rows]
    assert got.seconds > 0
    assert open_store(got.folder) == got


def test_pairs_have_two_answers_and_one_prompt(tmp_path, load):
    rows = pairs()
    backbone, renderer = load()
    got = stored(tmp_path, rows, load)
    assert got.sides == ("chosen", "rejected")
    for side in got.sides:
        talks = [r.conversation(getattr(r, side)) for r in rows]
        want = extract(talks, backbone, renderer, response=SETTINGS.response, prompt=SETTINGS.prompt)
        np.testing.assert_allclose(got.features(side, FINAL), want.response["final:last"], atol=1e-5)
        np.testing.assert_allclose(got.features("prompt", PROMPT), want.prompt["2:last"], atol=1e-5)
        assert got.tokens(side).tolist() == want.response_tokens.tolist()


def test_a_pair_whose_side_is_cut_keeps_the_fuller_prompt(tmp_path, load):
    _, renderer = load()
    rows = pairs(2, long=True)
    got = stored(tmp_path, rows, load)
    whole = [renderer.prompt_ids(r.context) for r in rows]
    assert got.tokens("prompt").tolist() == [len(p) for p in whole]
    block = got.block(0)
    assert block.tensors["rejected/truncated"].all()
    assert not block.tensors["chosen/truncated"].any()


def test_ratings_are_raw_and_in_the_order_that_is_asked_for(tmp_path, load):
    got = stored(tmp_path, rated(), load)
    help_, safe, other = (Objective(name=n, min=0, max=4) for n in ("help", "safe", "other"))
    ratings = np.concatenate([b.ratings(Objectives([safe, other, help_])) for b in got.blocks()])
    assert ratings[:, 2].tolist() == [float(i % 5) for i in range(8)]
    np.testing.assert_array_equal(ratings[:, 0], [1.0 if i % 2 else np.nan for i in range(8)])
    assert np.isnan(ratings[:, 1]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_keep_what_they_can(dtype, tmp_path, load):
    wide = stored(tmp_path, rated(3), load)
    narrow = stored(tmp_path, rated(3), load, dataclasses.replace(SETTINGS, store_dtype=dtype))
    a, b = wide.features("response", BOTH), narrow.features("response", BOTH)
    assert b.dtype == (np.float16 if dtype == "float16" else np.float32)  # NumPy has no bfloat16
    np.testing.assert_array_equal(torch.from_numpy(a).to(getattr(torch, dtype)).float().numpy(), b.astype(np.float32))


def test_no_rows_make_an_empty_store(tmp_path, load):
    got = stored(tmp_path, [], load)
    assert len(got) == 0
    assert open_store(got.folder) is not None


# -- found again -------------------------------------------------------------------------------------------------------


def test_the_same_inputs_load_no_model(tmp_path, load):
    first = stored(tmp_path, rated(), load)
    before = result_bytes(first.folder)
    again = stored(tmp_path, rated(), never)
    assert again == first
    assert result_bytes(again.folder) == before


def test_the_key_follows_everything_that_decides_the_bytes():
    rows, key = rated(), store_key(rated(), "finger", SETTINGS)
    assert store_key(rated(), "finger", SETTINGS) == key
    assert store_key(rows, "finger", dataclasses.replace(SETTINGS, batch_tokens=7)) == key
    other_text = (*rows[0].messages[:1], {"role": "assistant", "content": "other"})
    others = [
        store_key(rows, "another", SETTINGS),
        store_key(rows[:-1], "finger", SETTINGS),
        store_key(rows[::-1], "finger", SETTINGS),
        store_key([dataclasses.replace(rows[0], messages=other_text), *rows[1:]], "finger", SETTINGS),
        store_key([dataclasses.replace(rows[0], ratings={"help": 9.0}), *rows[1:]], "finger", SETTINGS),
        store_key([dataclasses.replace(rows[0], id="z"), *rows[1:]], "finger", SETTINGS),
        *(
            store_key(rows, "finger", dataclasses.replace(SETTINGS, **change))
            for change in (
                {"response": SETTINGS.response[:1]},
                {"prompt": FeatureSpec.parse("1:last").parts},
                {"max_tokens": 64},
                {"store_dtype": "float16"},
                {"shard_rows": 4},
            )
        ),
    ]
    assert len({key, *others}) == len(others) + 1


def test_progress_ends_with_all_rows_and_tokens(tmp_path, load):
    told: list[tuple[int, int, int]] = []
    got = stored(tmp_path, rated(), load, progress=lambda *at: told.append(at))
    assert told[-1] == (8, 8, got.manifest["tokens"])
    assert [t for _, _, t in told] == sorted(t for _, _, t in told)


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path_factory, load):
    """The bytes of a run that nothing interrupted."""
    return result_bytes(stored(tmp_path_factory.mktemp("whole"), rated(), load).folder)


def failing_extract(monkeypatch, at, error):
    calls = []

    def fails(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise error
        return extract(*args, **kwargs)

    monkeypatch.setattr(store, "extract", fails)
    return calls


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path, load, whole, monkeypatch):
    with monkeypatch.context() as patched:
        failing_extract(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, rated(), load)
    (home,) = tmp_path.iterdir()
    assert open_store(home) is None
    assert (home / "shard-00000-of-00003.safetensors").exists()
    calls = failing_extract(monkeypatch, 99, None)
    got = stored(tmp_path, rated(), load)
    assert len(calls) == 2  # the first shard is not computed again
    assert result_bytes(got.folder) == whole
    assert got.seconds > 0


@pytest.mark.parametrize("fault", ["cut", "garbage", "no facts", "bad facts", "facts of another kind"])
def test_a_shard_that_is_not_whole_is_computed_again(fault, tmp_path, load, whole):
    home = stored(tmp_path, rated(), load).folder
    (home / "manifest.json").unlink()
    tensors, facts = home / "shard-00001-of-00003.safetensors", home / "shard-00001-of-00003.json"
    if fault == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif fault == "garbage":
        tensors.write_bytes(b"not tensors")
    elif fault == "no facts":
        facts.unlink()
    else:
        facts.write_text("{" if fault == "bad facts" else "[1]")
    stored(tmp_path, rated(), load)
    assert result_bytes(home) == whole


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_features_store as t
from pathlib import Path
from armorm.conversation import Renderer
from armorm.features import store
from armorm.features.backbone import load_backbone

backbone = load_backbone({model!r}, dtype="float32", device="cpu")
real, calls = store.save_file, []

def slow(tensors, path):
    calls.append(path)
    real(tensors, path)
    if len(calls) == 2:  # the second shard is half done: written beside, not yet in its place
        print("now", flush=True)
        import time
        time.sleep(60)

store.save_file = slow
t.stored(Path({out!r}), t.rated(), lambda: (backbone, Renderer(backbone.tokenizer, max_tokens=t.SETTINGS.max_tokens)))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, tiny_folder, load, whole):
    code = KILLED.format(tests=str(Path(__file__).parent), model=str(tiny_folder), out=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (home,) = tmp_path.iterdir()
    assert open_store(home) is None
    stored(tmp_path, rated(), load)
    assert result_bytes(home) == whole


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "gone", "facts"])
def test_a_damaged_shard_of_a_complete_store_is_named(fault, tmp_path, load):
    got = stored(tmp_path, rated(), load)
    file = got.folder / f"shard-00001-of-00003.{'json' if fault == 'facts' else 'safetensors'}"
    if fault == "gone":
        file.unlink()
    else:
        file.write_bytes(b"{}" if fault == "facts" else file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"shard-00001-of-00003: missing or damaged .*remove it and manifest\.json"):
        got.features("response", BOTH)
    assert got.block(0).ids == ("r0", "r1", "r2")


def test_removing_what_the_message_says_mends_it(tmp_path, load, whole):
    home = stored(tmp_path, rated(), load).folder
    (home / "shard-00001-of-00003.safetensors").unlink()
    (home / "manifest.json").unlink()
    stored(tmp_path, rated(), load)
    assert result_bytes(home) == whole


@pytest.mark.parametrize("text", ["{", "", "[]", "{}", '{"format": 99}'])
def test_a_manifest_that_is_none_is_refused(text, tmp_path, load):
    home = stored(tmp_path, rated(), load).folder
    (home / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=str(home)):
        stored(tmp_path, rated(), never)


# -- full disks --------------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_complete(tmp_path, load, whole, monkeypatch):
    real, calls = store.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(store, "save_file", full)
        with pytest.raises(StorageError, match=r"disk is full.*complete shards are kept"):
            stored(tmp_path, rated(), load)
    (home,) = tmp_path.iterdir()
    assert [f.name for f in home.glob("*.safetensors")] == ["shard-00000-of-00003.safetensors"]
    assert not list(home.glob("*.part"))
    stored(tmp_path, rated(), load)
    assert result_bytes(home) == whole


def test_a_folder_that_can_not_be_written_is_a_storage_error(tmp_path, load):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another --out"):
        stored(tmp_path / "file", rated(), load)


def test_too_little_space_is_said_before_the_work(tmp_path, load, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(store, "extract", never)
    with pytest.raises(StorageError, match=r"need .* GB.*choose another --out"):
        stored(tmp_path, rated(), load)


def test_space_is_asked_for_what_is_missing_only(tmp_path, load, whole, monkeypatch):
    home = stored(tmp_path, rated(), load).folder
    (home / "manifest.json").unlink()
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    stored(tmp_path, rated(), load)
    assert result_bytes(home) == whole


def test_features_too_large_for_float16_say_what_to_set(tmp_path, backbone, load, monkeypatch):
    def large(*args, **kwargs):
        found = extract(*args, **kwargs)
        return dataclasses.replace(found, response={p: v * 1e6 for p, v in found.response.items()})

    monkeypatch.setattr(store, "extract", large)
    with pytest.raises(StorageError, match=r"overflow float16: set `features\.store_dtype: bfloat16`"):
        stored(tmp_path, rated(), load, dataclasses.replace(SETTINGS, store_dtype="float16"))
    assert stored(tmp_path, rated(), load, dataclasses.replace(SETTINGS, store_dtype="bfloat16"))


# -- reuse -------------------------------------------------------------------------------------------------------------


def test_known_answers_are_copied_and_cost_no_tokens(tmp_path, load):
    first = stored(tmp_path / "a", rated(), load)
    known = Known()
    known.add(first, rated())
    fresh = stored(tmp_path / "b", pairs(), load)
    reused = stored(tmp_path / "c", pairs(), load, known=known)
    for side in ("chosen", "rejected", "prompt"):
        spec = PROMPT if side == "prompt" else BOTH
        np.testing.assert_allclose(reused.features(side, spec), fresh.features(side, spec), atol=1e-5)
        assert reused.tokens(side).tolist() == fresh.tokens(side).tolist()
    np.testing.assert_array_equal(reused.features("chosen", BOTH), first.features("response", BOTH)[:5])
    assert 0 < reused.manifest["tokens"] < fresh.manifest["tokens"]
    assert {f.name for f in reused.folder.iterdir()} == {f.name for f in fresh.folder.iterdir()}


def test_what_is_known_altogether_costs_nothing(tmp_path, load):
    known = Known()
    known.add(stored(tmp_path / "a", pairs(), load), pairs())
    again = stored(tmp_path / "b", rated(5), load, known=known)
    assert again.manifest["tokens"] == 0
    np.testing.assert_allclose(
        again.features("response", BOTH), stored(tmp_path / "c", rated(5), load).features("response", BOTH), atol=1e-5
    )


def test_truncated_rows_are_never_reused(tmp_path, load):
    rows = pairs(2, long=True)
    known = Known()
    known.add(stored(tmp_path / "a", rows, load), rows)
    assert known.get(rows[0].conversation(rows[0].rejected)) is None
    found = known.get(rows[0].conversation(rows[0].chosen))
    assert found is not None
    assert set(found) == {
        "response/2:mean",
        "response/final:last",
        "response/tokens",
        "response/truncated",
        "prompt/2:last",
        "prompt/tokens",
    }
    assert known.get(rows[0].conversation("never seen")) is None
