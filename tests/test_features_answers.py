"""Stored answers: read by column and slice, found again, resumed to the same bytes, refused when damaged, reused."""

from __future__ import annotations

import dataclasses
import errno
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from armorm.data.rows import BenchmarkItem, PreferencePair, RatedResponse
from armorm.errors import CheckpointError, StorageError
from armorm.features import storing
from armorm.features.answers import Answers, column_of, open_answers
from armorm.features.backbone import Backbone, load_backbone
from armorm.features.extract import extract
from armorm.features.spec import FeatureSpec
from armorm.features.storing import ExtractionSettings, Known, labels_key, store_answers, store_key
from armorm.objectives import Objective, Objectives
from armorm.rendering import Renderer

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


def items():
    """Best of three, two right answers against one, a pair."""
    shapes = (("b0", 1, 2), ("b1", 2, 1), ("b2", 1, 1))
    return [
        BenchmarkItem(
            id=name,
            group=f"g{name}",
            source="bench",
            context=({"role": "system", "content": "be kind"}, {"role": "user", "content": f"question {name}"}),
            chosen=tuple(f"right {name} {i}" for i in range(chosen)),
            rejected=tuple(f"wrong {name} " * (1 + i) for i in range(rejected)),
            section="chat",
            subset=f"s{i}",
        )
        for i, (name, chosen, rejected) in enumerate(shapes)
    ]


@dataclasses.dataclass(frozen=True)
class Decoder:
    """A decoder that is at hand, or (None) one that nothing may ask for."""

    backbone: Backbone | None
    fingerprint: str = "finger"

    def load(self) -> tuple[Backbone, Renderer]:
        assert self.backbone is not None, "nothing has to be computed"
        return self.backbone, Renderer(self.backbone.tokenizer, max_tokens=SETTINGS.max_tokens)


NEVER = Decoder(None)


@pytest.fixture(scope="module")
def decoder(tiny_folder) -> Decoder:
    return Decoder(load_backbone(str(tiny_folder), dtype="float32", device="cpu"))


def result_bytes(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(folder.iterdir()) if f.name != "timings.jsonl"}


def stored(folder, rows, decoder, settings=SETTINGS, **options) -> Answers:
    return store_answers(folder, "src", rows, decoder, settings, **options)


# -- round trip --------------------------------------------------------------------------------------------------------


def test_what_is_stored_reads_back(tmp_path, decoder):
    rows = rated()
    backbone, renderer = decoder.load()
    want = extract([r.messages for r in rows], backbone, renderer, response=SETTINGS.response, prompt=SETTINGS.prompt)
    got = stored(tmp_path, rows, decoder)
    assert (len(got), got.sizes().tolist(), len(got.manifest["shards"])) == (8, [1] * 8, 3)
    np.testing.assert_allclose(got.features(BOTH), np.hstack([want.response["2:mean"], want.response["final:last"]]), atol=1e-5)
    np.testing.assert_allclose(got.prompts(PROMPT), want.prompt["2:last"], atol=1e-5)
    assert got.tokens().tolist() == want.response_tokens.tolist()
    assert got.column("prompt/tokens").tolist() == want.prompt_tokens.tolist()
    assert got.ids == [r.id for r in rows]
    assert got.groups == [r.group for r in rows]
    assert got.sections == [""] * 8
    assert got.texts(7).context == rows[7].messages[:-1]
    assert got.texts(7).answers == (rows[7].messages[-1]["content"],)
    assert list(got.contexts()) == [r.messages[:-1] for r in rows]
    assert got.seconds > 0
    assert open_answers(got.folder) == got


def test_a_shards_features_are_those_of_its_rows_to_the_bit(tmp_path, decoder):
    """Reference: each shard's conversations in one extraction of their own, pairs' answers as neighbours."""
    backbone, renderer = decoder.load()
    for rows in (rated(), pairs(), items()):
        got = stored(tmp_path, rows, decoder)
        talks = [
            [r.messages] if isinstance(r, RatedResponse) else [r.conversation(a) for a in got.texts(i).answers]
            for i, r in enumerate(rows)
        ]
        whole = {"response": SETTINGS.response, "prompt": SETTINGS.prompt, "batch_tokens": SETTINGS.batch_tokens}
        for at in got.blocks():
            want = extract([t for own in talks[at] for t in own], backbone, renderer, **whole)
            np.testing.assert_array_equal(got.features(FINAL, at), want.response["final:last"])
            first = np.cumsum([0] + [len(own) for own in talks[at]])[:-1]
            np.testing.assert_array_equal(got.prompts(PROMPT, at), want.prompt["2:last"][first])


def test_pairs_have_two_answers_and_one_prompt(tmp_path, decoder):
    rows = pairs()
    backbone, renderer = decoder.load()
    got = stored(tmp_path, rows, decoder)
    assert got.sizes().tolist() == [2] * 5
    assert got.ratings(Objectives([Objective(name="help", min=0, max=4)])).shape == (5, 1)
    for place, side in enumerate(("chosen", "rejected")):
        talks = [r.conversation(getattr(r, side)) for r in rows]
        want = extract(talks, backbone, renderer, response=SETTINGS.response, prompt=SETTINGS.prompt)
        np.testing.assert_allclose(got.features(FINAL)[place::2], want.response["final:last"], atol=1e-5)
        np.testing.assert_allclose(got.prompts(PROMPT), want.prompt["2:last"], atol=1e-5)
        assert got.tokens()[place::2].tolist() == want.response_tokens.tolist()
    assert [i.sizes for i in got.items()] == [(1, 1)] * 5


def test_an_item_has_all_its_answers_once(tmp_path, decoder):
    rows = items()
    backbone, renderer = decoder.load()
    got = stored(tmp_path, rows, decoder, dataclasses.replace(SETTINGS, shard_rows=2))
    assert got.sizes().tolist() == [3, 3, 2]
    assert [(i.id, i.group, i.section, i.subset, i.sizes) for i in got.items()] == [
        (r.id, r.group, r.section, r.subset, (len(r.chosen), len(r.rejected))) for r in rows
    ]
    talks = [r.conversation(a) for r in rows for a in r.answers]
    want = extract(talks, backbone, renderer, response=SETTINGS.response, prompt=SETTINGS.prompt)
    np.testing.assert_allclose(got.features(FINAL), want.response["final:last"], atol=1e-5)
    np.testing.assert_allclose(got.prompts(PROMPT), want.prompt["2:last"][[0, 3, 6]], atol=1e-5)
    for i, row in enumerate(rows):
        assert (got.texts(i).context, got.texts(i).answers) == (row.context, row.answers)
        answers = slice(3 * i, 3 * i + len(row.answers))
        np.testing.assert_array_equal(got.features(FINAL, slice(i, i + 1)), got.features(FINAL)[answers])


def test_any_slice_is_that_part_of_the_whole(tmp_path, decoder):
    rated_, items_ = (
        stored(tmp_path, rated(), decoder),
        stored(tmp_path, items(), decoder, dataclasses.replace(SETTINGS, shard_rows=1)),
    )
    for got, ends in ((rated_, np.arange(9)), (items_, np.array([0, 3, 6, 8]))):
        for a in range(len(got) + 1):
            for b in range(a, len(got) + 1):
                at = slice(a, b)
                np.testing.assert_array_equal(got.features(BOTH, at), got.features(BOTH)[ends[a] : ends[b]])
                np.testing.assert_array_equal(got.prompts(PROMPT, at), got.prompts(PROMPT)[at])
                assert got.tokens(at).tolist() == got.tokens()[ends[a] : ends[b]].tolist()


def test_reading_leaves_nothing_mapped_and_no_file_open(tmp_path, decoder):
    got = stored(tmp_path, rated(), decoder)
    whole = column_of([got], "response", BOTH)
    for at in (np.arange(8), np.array([7, 0])):
        whole.rows(at)
    got.features(BOTH)
    assert str(got.folder) not in Path("/proc/self/maps").read_text()
    assert not [f for f in Path("/proc/self/fd").iterdir() if str(got.folder) in str(f.resolve())]


def test_a_pair_whose_side_is_cut_keeps_the_fuller_prompt(tmp_path, decoder):
    _, renderer = decoder.load()
    rows = pairs(2, long=True)
    got = stored(tmp_path, rows, decoder)
    whole = [renderer.render([*r.context, {"role": "assistant", "content": "hi"}]).prompt for r in rows]
    assert got.column("prompt/tokens").tolist() == [len(p) for p in whole]
    assert got.column("response/truncated").tolist() == [False, True, False, True]


def test_ratings_are_raw_and_in_the_order_that_is_asked_for(tmp_path, decoder):
    got = stored(tmp_path, rated(), decoder)
    help_, safe, other = (Objective(name=n, min=0, max=4) for n in ("help", "safe", "other"))
    ratings = got.ratings(Objectives([safe, other, help_]))
    assert ratings[:, 2].tolist() == [float(i % 5) for i in range(8)]
    np.testing.assert_array_equal(ratings[:, 0], [1.0 if i % 2 else np.nan for i in range(8)])
    assert np.isnan(ratings[:, 1]).all()
    np.testing.assert_array_equal(got.ratings(Objectives([safe, other, help_]), slice(2, 7)), ratings[2:7])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_types_keep_what_they_can(dtype, tmp_path, decoder):
    wide = stored(tmp_path, rated(3), decoder)
    narrow = stored(tmp_path, rated(3), decoder, dataclasses.replace(SETTINGS, store_dtype=dtype))
    a, b = wide.features(BOTH), narrow.features(BOTH)
    assert b.dtype == (np.float16 if dtype == "float16" else np.float32)  # NumPy has no bfloat16
    np.testing.assert_array_equal(torch.from_numpy(a).to(getattr(torch, dtype)).float().numpy(), b.astype(np.float32))


def test_half_a_surrogate_pair_becomes_a_question_mark_in_labels(tmp_path, decoder):
    rows = [dataclasses.replace(rated(1)[0], id="a\ud800b")]
    assert stored(tmp_path, rows, decoder).ids == ["a?b"]


def test_no_rows_make_an_empty_store(tmp_path, decoder):
    got = stored(tmp_path, [], decoder)
    assert (len(got), got.ids, got.items(), list(got.contexts())) == (0, [], [], [])
    assert got.features(BOTH).shape == (0, 64)
    assert open_answers(got.folder) is not None


# -- found again -------------------------------------------------------------------------------------------------------


def test_the_same_inputs_load_no_model(tmp_path, decoder):
    first = stored(tmp_path, rated(), decoder)
    before = result_bytes(first.folder)
    again = stored(tmp_path, rated(), NEVER)
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


def test_other_labels_cost_no_decoder_and_leave_the_old_ones(tmp_path, decoder):
    """What a row's group is depends on the other sources of a run: its features don't."""
    first = stored(tmp_path, items(), decoder)
    changes = {"id": "z", "group": "other", "section": "code", "subset": "x"}
    moved = {name: [dataclasses.replace(items()[0], **{name: value}), *items()[1:]] for name, value in changes.items()}
    moved["chosen"] = [
        dataclasses.replace(items()[0], chosen=items()[0].answers[:2], rejected=items()[0].answers[2:]),
        *items()[1:],
    ]
    keys = {labels_key(rows) for rows in moved.values()} | {labels_key(items())}
    assert len(keys) == 6
    for name, rows in moved.items():
        found = stored(tmp_path, rows, NEVER)
        assert (found.folder, found.key != first.key) == (first.folder, True)
        assert (found.items()[0].sizes == (2, 1)) if name == "chosen" else (getattr(found.items()[0], name) == changes[name])
    assert first.items() == stored(tmp_path, items(), NEVER).items()
    with pytest.raises(CheckpointError, match="6 sets of labels, say which"):
        open_answers(first.folder)


def test_progress_ends_with_all_rows_and_tokens(tmp_path, decoder):
    told: list[tuple[int, int, int]] = []
    got = stored(tmp_path, rated(), decoder, progress=lambda *at: told.append(at))
    assert told[-1] == (8, 8, got.manifest["tokens"])
    assert [t for _, _, t in told] == sorted(t for _, _, t in told)


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path_factory, decoder):
    """The bytes of a run that nothing interrupted."""
    return result_bytes(stored(tmp_path_factory.mktemp("whole"), rated(), decoder).folder)


def failing_extract(monkeypatch, at, error):
    calls = []

    def fails(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise error
        return extract(*args, **kwargs)

    monkeypatch.setattr(storing, "extract", fails)
    return calls


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path, decoder, whole, monkeypatch):
    with monkeypatch.context() as patched:
        failing_extract(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, rated(), decoder)
    (home,) = tmp_path.iterdir()
    assert open_answers(home) is None
    assert (home / "shard-00000-of-00003.safetensors").exists()
    calls = failing_extract(monkeypatch, 99, None)
    got = stored(tmp_path, rated(), decoder)
    assert len(calls) == 2  # the first shard is not computed again
    assert result_bytes(got.folder) == whole
    assert got.seconds > 0


def flip(file: Path, place: int = -9) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "fault", ["cut", "garbage", "a bit", "no facts", "bad facts", "facts of another kind", "a bit of the facts"]
)
def test_a_shard_that_is_not_whole_is_computed_again(fault, tmp_path, decoder, whole):
    home = stored(tmp_path, rated(), decoder).folder
    (home / "manifest.json").unlink()
    tensors, facts = home / "shard-00001-of-00003.safetensors", home / "shard-00001-of-00003.json"
    if fault == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif fault == "garbage":
        tensors.write_bytes(b"not tensors")
    elif fault == "no facts":
        facts.unlink()
    elif fault.startswith("a bit"):
        flip(tensors if fault == "a bit" else facts)
    else:
        facts.write_text("{" if fault == "bad facts" else "[1]")
    stored(tmp_path, rated(), decoder)
    assert result_bytes(home) == whole


KILLED = """
import sys
sys.path.insert(0, {tests!r})
import test_features_answers as t
from pathlib import Path
from armorm.features import storing
from armorm.features.backbone import load_backbone

real, calls = storing.save_file, []

def slow(tensors, path):
    calls.append(path)
    real(tensors, path)
    if len(calls) == 2:  # the second shard is half done: written beside, not yet in its place
        print("now", flush=True)
        import time
        time.sleep(60)

storing.save_file = slow
t.stored(Path({out!r}), t.rated(), t.Decoder(load_backbone({model!r}, dtype="float32", device="cpu")))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path, tiny_folder, decoder, whole):
    code = KILLED.format(tests=str(Path(__file__).parent), model=str(tiny_folder), out=str(tmp_path))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "now\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    (home,) = (place for place in tmp_path.iterdir() if place.is_dir())  # beside the lock of the process that is gone
    assert open_answers(home) is None
    stored(tmp_path, rated(), decoder)
    assert result_bytes(home) == whole


# -- damaged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "gone", "a bit", "facts", "a bit of the facts"])
def test_a_damaged_shard_of_a_complete_store_is_named(fault, tmp_path, decoder):
    got = stored(tmp_path, rated(), decoder)
    file = got.folder / f"shard-00001-of-00003.{'json' if 'facts' in fault else 'safetensors'}"
    if fault == "gone":
        file.unlink()
    elif fault.startswith("a bit"):
        flip(file)
    else:
        file.write_bytes(b"{}" if fault == "facts" else file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=rf"{file.name}: .*remove the manifest\.json beside it and extract again"):
        got.features(BOTH)
    assert len(got.features(BOTH, slice(0, 3))) == 3  # the first shard is whole


@pytest.mark.parametrize("name", ["texts.parquet", "labels-{}.parquet", "labels-{}.json"])
def test_damaged_texts_and_labels_are_named(name, tmp_path, decoder):
    got = stored(tmp_path, rated(), decoder)
    file = got.folder / name.format(got.labels)
    flip(file, len(file.read_bytes()) // 2)
    with pytest.raises(CheckpointError, match=rf"{file.name}: damaged .*extract again"):
        _ = got.texts(0) if name == "texts.parquet" else got.groups
    if name != "texts.parquet":  # a run has the rows at hand
        assert stored(tmp_path, rated(), NEVER).groups == [r.group for r in rated()]


def test_removing_what_the_message_says_mends_it(tmp_path, decoder, whole):
    home = stored(tmp_path, rated(), decoder).folder
    for name in ("shard-00001-of-00003.safetensors", "texts.parquet"):
        flip(home / name)
    (home / "manifest.json").unlink()
    stored(tmp_path, rated(), decoder)
    assert result_bytes(home) == whole


@pytest.mark.parametrize("text", ["{", "", "[]", "{}", '{"format": 99}', '{"format": 1, "sides": ["response"]}', '{"format": 2}'])
def test_a_manifest_that_is_none_is_refused(text, tmp_path, decoder):
    home = stored(tmp_path, rated(), decoder).folder
    (home / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"{home}.*extract again") as refused:
        stored(tmp_path, rated(), NEVER)
    assert ("format 1, this version reads 3" in str(refused.value)) == ("sides" in text)


def test_each_file_is_verified_once_per_open_store(tmp_path, decoder, monkeypatch):
    from armorm.features import answers

    got = stored(tmp_path, rated(), decoder)
    verified: list[str] = []
    real = answers.check_digest
    monkeypatch.setattr(answers, "check_digest", lambda place, *a, **k: verified.append(place.name) or real(place, *a, **k))
    for _ in range(3):
        _ = got.features(BOTH), got.prompts(PROMPT), got.groups, got.ids, got.texts(0), list(got.contexts())
    shards = {f"shard-0000{i}-of-00003.{kind}" for i in range(3) for kind in ("json", "safetensors")}
    assert sorted(verified) == sorted({*shards, "texts.parquet", f"labels-{got.labels}.parquet"})


# -- full disks --------------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_what_is_complete(tmp_path, decoder, whole, monkeypatch):
    real, calls = storing.save_file, []

    def full(tensors, path):
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(storing, "save_file", full)
        with pytest.raises(StorageError, match=r"disk is full; what is complete is kept"):
            stored(tmp_path, rated(), decoder)
    (home,) = tmp_path.iterdir()
    assert [f.name for f in home.glob("*.safetensors")] == ["shard-00000-of-00003.safetensors"]
    assert not list(home.glob("*.part"))
    stored(tmp_path, rated(), decoder)
    assert result_bytes(home) == whole


def test_a_folder_that_can_not_be_written_is_a_storage_error(tmp_path, decoder):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"):
        stored(tmp_path / "file", rated(), decoder)


def test_too_little_space_is_said_before_the_work(tmp_path, decoder, monkeypatch):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(storing.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(storing, "extract", lambda *_, **__: pytest.fail("nothing is computed"))
    with pytest.raises(StorageError, match=r"need .* MB.*choose another folder"):
        stored(tmp_path, rated(), decoder)


def test_space_is_asked_for_what_is_missing_only(tmp_path, decoder, whole, monkeypatch):
    home = stored(tmp_path, rated(), decoder).folder
    (home / "manifest.json").unlink()
    monkeypatch.setattr(storing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    stored(tmp_path, rated(), decoder)
    assert result_bytes(home) == whole


def test_features_too_large_for_float16_say_what_to_set(tmp_path, decoder, monkeypatch):
    def large(*args, **kwargs):
        found = extract(*args, **kwargs)
        return dataclasses.replace(found, response={p: v * 1e6 for p, v in found.response.items()})

    monkeypatch.setattr(storing, "extract", large)
    with pytest.raises(StorageError, match=r"overflow float16: set `features\.store_dtype: bfloat16`"):
        stored(tmp_path, rated(), decoder, dataclasses.replace(SETTINGS, store_dtype="float16"))
    assert stored(tmp_path, rated(), decoder, dataclasses.replace(SETTINGS, store_dtype="bfloat16"))


# -- reuse -------------------------------------------------------------------------------------------------------------


def test_known_answers_are_copied_and_cost_no_tokens(tmp_path, decoder):
    first = stored(tmp_path / "a", rated(), decoder)
    known = Known()
    known.add(first, rated())
    fresh = stored(tmp_path / "b", pairs(), decoder)
    reused = stored(tmp_path / "c", pairs(), decoder, known=known)
    np.testing.assert_allclose(reused.features(BOTH), fresh.features(BOTH), atol=1e-5)
    np.testing.assert_allclose(reused.prompts(PROMPT), fresh.prompts(PROMPT), atol=1e-5)
    for tokens in ("response/tokens", "prompt/tokens"):
        assert reused.column(tokens).tolist() == fresh.column(tokens).tolist()
    np.testing.assert_array_equal(reused.features(BOTH)[::2], first.features(BOTH)[:5])
    assert 0 < reused.manifest["tokens"] < fresh.manifest["tokens"]
    assert {f.name for f in reused.folder.iterdir()} == {f.name for f in fresh.folder.iterdir()}


def test_what_is_known_altogether_costs_nothing(tmp_path, decoder):
    known = Known()
    known.add(stored(tmp_path / "a", pairs(), decoder), pairs())
    again = stored(tmp_path / "b", rated(5), decoder, known=known)
    assert again.manifest["tokens"] == 0
    np.testing.assert_allclose(again.features(BOTH), stored(tmp_path / "c", rated(5), decoder).features(BOTH), atol=1e-5)


def test_truncated_rows_are_never_reused(tmp_path, decoder):
    rows = pairs(2, long=True)
    known = Known()
    known.add(stored(tmp_path / "a", rows, decoder), rows)
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
