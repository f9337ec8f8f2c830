"""Nuisances that are counted in texts: what counts, where the counts are kept, that a model counts what training did."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest
import torch
from conftest import random_parts
from test_features_answers import Decoder, items, pairs, rated, stored

from armorm.bench import perturbations
from armorm.data import padding
from armorm.data.padding import MARKS, OPENINGS, REMARKS, pad
from armorm.errors import BackboneError, CheckpointError, FitError
from armorm.features.answers import open_answers, store_faults
from armorm.features.backbone import load_backbone
from armorm.features.nuisances import COMPUTED, RESPONSE_TOKENS, STYLE, style_of
from armorm.features.storing import write_style
from armorm.fit.method import compute_nuisances
from armorm.model.config import RewardModelConfig
from armorm.model.reward_model import RewardModel

MARKED = "# Plan\n\n1. **one** step!\n- two steps\n\n```\n# no heading! **no**\n```\nDone! 🙂"


def counted(text):
    return {name: count for name, count in zip(STYLE, style_of(text), strict=True) if count}


# -- what counts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("plain words, 3 * 4 and a - b_c", {}),
        ("# One\ntext\n### Three", {"markdown-headers": 2}),
        ("#hashtag\n#\n####### seven\n text # behind", {}),
        ("- a\n* b\n+ c\n  1. d\n2) e\n• f", {"list-items": 6}),
        ("-5 degrees\n1.5 litres\n- \n--- \n2024 was", {}),
        ("**bold** and __bold__, **two words**", {"bold-spans": 3}),
        ("a ** b ** c\n**open\nnot closed**\n____", {"bold-spans": 1}),
        ("```python\nprint('!')\n```", {"code-fences": 1}),
        ("```\na\n```\ntext\n~~~\n```\n~~~\nmore", {"code-fences": 2}),
        ("````\n```\nstill code!\n```\n````\nout!", {"code-fences": 1, "exclamation-marks": 1}),
        ("```\nnever closed!\n# no", {"code-fences": 1}),
        ("inline ```code``` is none\n", {}),
        ("Wow!! 好！", {"exclamation-marks": 3}),
        ("🙂👍", {"emoji": 2}),
        ("👍🏽 ❤️ 👨‍👩‍👧 🇩🇪", {"emoji": 4}),
        ("naïve Ünïcode — “quoted” → ∑ ©", {}),
        (MARKED, dict.fromkeys(STYLE, 1) | {"list-items": 2, "exclamation-marks": 2}),
    ],
)
def test_counts_by_hand(text, found):
    assert counted(text) == found


def test_windows_lines_and_halves_of_surrogates_are_read():
    assert counted("# One\r\n- two\r\n```\r\n# no\r\n```\r\n") == {"markdown-headers": 1, "list-items": 1, "code-fences": 1}
    assert counted("\ud83d **b**") == {"bold-spans": 1}


@pytest.mark.parametrize(
    "piece", ["*", "**", "_", "__a", "#", "# ", "- ", "1", "`", "```\n", "~", " ", "\t\n", "!", "🙂\u200d", "\ufe0f", "**a"]
)
def test_time_follows_the_length(piece):
    start = time.perf_counter()
    style_of(piece * (200_000 // len(piece)))
    assert time.perf_counter() - start < 5


def test_columns_follow_the_names():
    tokens, style = np.array([3.0, 5.0]), np.arange(12, dtype=np.int32).reshape(2, 6)
    assert compute_nuisances(("emoji", RESPONSE_TOKENS, "list-items"), tokens, style).tolist() == [[5, 3, 1], [11, 5, 7]]
    assert compute_nuisances((RESPONSE_TOKENS,), tokens).tolist() == [[3], [5]]
    assert compute_nuisances((), tokens, style).shape == (2, 0)
    with pytest.raises(FitError, match="emoji: these answers' texts have not been counted"):
        compute_nuisances(("emoji",), tokens)
    with pytest.raises(FitError, match=r"adverbs: is no nuisance .*choose among response-tokens, markdown-headers"):
        compute_nuisances(("adverbs",), tokens, style)


# -- padding texts --------------------------------------------------------------------------------------------------------------

PIECES = [*OPENINGS, *REMARKS, *(piece for pieces in MARKS.values() for piece in pieces)]


def runs(text, size=3):
    words = re.findall(r"[\w']+", text.lower())
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


def test_padding_shares_no_run_of_three_words_with_what_an_audit_adds():
    audited = set().union(*(runs(t) for of in perturbations.TEXTS.values() for t in ([of] if isinstance(of, str) else of)))
    assert len(audited) > 150
    assert not [run for piece in PIECES for run in runs(piece) & audited]
    assert runs("It is important to note.") & audited  # the comparison sees what is shared
    assert not [p for p in PIECES if "## Answer" in p]  # the audit's own heading


def test_every_mark_is_what_its_nuisance_counts():
    assert tuple(MARKS) == STYLE
    for name, pieces in MARKS.items():
        assert all(counted(piece).get(name) for piece in pieces)
    assert not [text for text in (*OPENINGS, *REMARKS) if counted(text)]


def test_padded_copies_hold_their_answer_and_are_the_same_each_time():
    answers = [f"answer {i}\n- with a list" for i in range(400)]
    copies = [pad(answer, seed=0) for answer in answers]
    assert all(answer in copy and len(copy) > len(answer) + 40 for answer, copy in zip(answers, copies, strict=True))
    assert copies == [pad(answer, seed=0) for answer in answers]
    assert copies != [pad(answer, seed=1) for answer in answers]
    assert {piece for piece in PIECES if any(piece in copy for copy in copies)} == set(PIECES)
    gained = np.array([style_of(c) for c in copies]) - np.array([style_of(a) for a in answers])
    design = np.column_stack([gained, [len(c) - len(a) for a, c in zip(answers, copies, strict=True)]])
    scaled = design / np.sqrt((design**2).mean(axis=0))
    lengths = np.linalg.svd(scaled, compute_uv=False)
    assert lengths[-1] > 0.1 * lengths[0]  # what each adds can be told apart
    assert pad("\ud83d", seed=0)  # half a surrogate pair has no UTF-8
    assert len(REMARKS) >= padding.MOST_REMARKS


# -- beside the stored features -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def decoder(tiny_folder) -> Decoder:
    return Decoder(load_backbone(str(tiny_folder), dtype="float32", device="cpu"))


def test_counts_stand_beside_the_features_and_are_found_again(tmp_path, decoder):
    _, renderer = decoder.load()
    for rows in (rated(), pairs(), items()):
        got = stored(tmp_path, rows, decoder)
        before = {file.name: file.read_bytes() for file in got.folder.iterdir()}
        with pytest.raises(CheckpointError, match=r"style.json.*counted anew, without the decoder"):
            got.style()  # a store as earlier versions wrote it
        write_style(got, rows, renderer)
        texts = [answer for row in range(len(got)) for answer in got.texts(row).answers]
        assert got.style().tolist() == [list(style_of(text)) for text in texts]
        assert {name: (got.folder / name).read_bytes() for name in before} == before  # nothing else has changed
        stamp = (got.folder / "style.safetensors").stat().st_mtime_ns
        write_style(open_answers(got.folder), (), renderer)  # whole: the rows are not asked for
        assert (got.folder / "style.safetensors").stat().st_mtime_ns == stamp
        assert not list(store_faults(got.folder))


@pytest.mark.parametrize("file", ["style.json", "style.safetensors"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damaged_counts_are_named_and_counted_again(tmp_path, decoder, file, harm):
    rows, (_, renderer) = rated(), decoder.load()
    got = stored(tmp_path, rows, decoder)
    write_style(got, rows, renderer)
    want, place = got.style(), got.folder / file
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 4
    if harm == "remove":
        place.unlink()
    else:
        place.write_bytes(bytes(data) if harm == "flip" else bytes(data[: len(data) // 2]))
    with pytest.raises(CheckpointError, match=file):
        got.style()
    assert [name for name, _ in store_faults(got.folder)] == [file]
    write_style(got, rows, renderer)
    np.testing.assert_array_equal(got.style(), want)
    assert not list(store_faults(got.folder))


def test_counts_of_another_store_are_refused(tmp_path, decoder):
    _, renderer = decoder.load()
    one, other = (stored(tmp_path, rows, decoder) for rows in (rated(8), rated(5)))
    write_style(other, rated(5), renderer)
    for ending in ("json", "safetensors"):
        (one.folder / f"style.{ending}").write_bytes((other.folder / f"style.{ending}").read_bytes())
    with pytest.raises(CheckpointError, match="another version's or another store's"):
        one.style()


# -- in a model ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def styled(assembled, parts) -> RewardModel:
    """The tiny model with a debiasing that reads everything that can be computed."""
    probe, _, gate = parts
    return assembled(probe, random_parts(probe.objectives, 64, 64, COMPUTED)[1], gate)


def talk(answer):
    return [{"role": "user", "content": "how?"}, {"role": "assistant", "content": answer}]


def test_a_model_counts_what_training_counts(styled):
    texts = [MARKED, "plain", " white space around! ", "**b** 🙂🙂"]
    scores = styled.score([talk(text) for text in texts])
    for text, score in zip(texts, scores, strict=True):
        assert {name: int(score.terms[name]) for name in STYLE if score.terms[name]} == counted(text)
        assert score.terms[RESPONSE_TOKENS] == len(styled.renderer.render(talk(text)).answer)
        assert score.score == pytest.approx(sum(score.contributions.values()), abs=1e-9)
    assert scores[0].contributions["bold-spans"] != 0


def test_an_answer_that_is_cut_counts_whole_and_a_refused_row_costs_nothing(styled):
    long = MARKED + " and so on" * 200
    table = styled.engine().score([talk(long), [], talk("plain")])
    assert table.truncated.tolist() == [True, False, False]
    assert table.faults[1] is not None
    assert {name: int(n) for name, n in table[0].terms.items() if name in STYLE and n} == counted(long)
    assert not [n for name, n in table[2].terms.items() if name in STYLE and n]


def test_bare_token_ids_give_the_same_score(styled):
    talks = [talk(text) for text in (MARKED, "plain words", "- a\n- **b**! 🙂")]
    rendered = [styled.renderer.render(one) for one in talks]
    width = max(map(len, rendered))
    ids, mask = torch.zeros(len(talks), width, dtype=torch.long), torch.zeros(len(talks), width, dtype=torch.long)
    for i, row in enumerate(rendered):
        ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row.ids), 1
    want = [score.score for score in styled.score(talks)]
    lengths = torch.tensor([len(row.prompt) for row in rendered])
    for options in ({}, {"prompt_lengths": lengths}):
        np.testing.assert_allclose(styled(ids, attention_mask=mask, **options).score.tolist(), want, atol=1e-4)


def test_without_a_tokenizer_texts_can_not_be_counted(styled, tmp_path):
    styled.save_pretrained(tmp_path / "m")
    for file in (tmp_path / "m").glob("*token*"):
        file.unlink()
    (tmp_path / "m" / "SHA256SUMS").unlink(missing_ok=True)
    model = RewardModel.from_pretrained(tmp_path / "m")
    assert model.tokenizer is None
    row = styled.renderer.render(talk("plain"))
    with pytest.raises(BackboneError, match=r"emoji, which are counted in texts: add tokenizer files"):
        model(torch.tensor([row.ids]), prompt_lengths=torch.tensor([len(row.prompt)]))


def test_a_saved_model_keeps_its_nuisances_by_name_and_knows_no_others(styled, tmp_path):
    styled.save_pretrained(tmp_path / "m")
    again = RewardModel.from_pretrained(tmp_path / "m")
    assert again.config.computed == list(COMPUTED)
    assert again.score(talk(MARKED)).score == pytest.approx(styled.score(talk(MARKED)).score, abs=1e-6)
    facts = json.loads((tmp_path / "m" / "config.json").read_text()) | {"computed": ["adverbs"]}
    with pytest.raises(CheckpointError, match=r"config.json: computed: adverbs: is no nuisance that can be computed"):
        RewardModel(RewardModelConfig(**{k: v for k, v in facts.items() if k != "model_type"}))
