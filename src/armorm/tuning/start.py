"""Where eq. (1) starts: w as the ridge probe on the decoder as it is, so that training improves on the probe from its first step.

In: a model with a k-logit head, tokenised examples with ratings.  Out: the head's weights set.  Cost: one forward pass over a
sample of the examples, one ridge fit.

With a random w the first steps go into undoing it, through the decoder's weights too (Kumar et al. 2022, arXiv 2202.10054: probe
first, then fine-tune).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from armorm.data.splits import folds_of
from armorm.errors import FitError
from armorm.features.forward import last_states, pad_right, run_decoder
from armorm.features.packing import cut_by_length
from armorm.features.spec import FINAL
from armorm.fit.probe import fit_probe
from armorm.fit.statistics import RidgeStatistics
from armorm.objectives import Objectives

ROWS = 1024
FOLDS = 5
ALPHAS = [10.0**e for e in range(-2, 9)]
BATCH_TOKENS = 4096


def start_at_the_probe(model: Any, dataset: Any, objectives: Objectives, *, seed: int) -> None:
    """Set the head's weights by eq. (1) with θ fixed, on at most `ROWS` of the examples (columns `input_ids`, `labels`, `group`).

    An objective that this sample can't fit starts at 0. Adapters must not have been trained yet.
    """
    order = np.random.default_rng(seed).permutation(len(dataset))[:ROWS]
    rows = [dataset[int(i)] for i in order]
    states = read_last_states(model, [row["input_ids"] for row in rows])
    ratings = np.array([[np.nan if x is None else x for x in row["labels"]] for row in rows], dtype=np.float64)
    fold = np.array([folds_of(row["group"], seed=seed, folds=FOLDS) for row in rows])
    folds = [RidgeStatistics.from_rows(states[fold == i], ratings[fold == i]) for i in range(FOLDS) if (fold == i).any()]
    try:
        weights = fit_probe(folds, objectives, alphas=ALPHAS).probe.weights
    except FitError:  # hardly any ratings: nothing to start from
        weights = np.zeros((len(objectives), states.shape[1]))
    head = head_of(model)
    head.data = torch.tensor(weights, dtype=head.dtype, device=head.device)


def head_of(model: Any) -> torch.nn.Parameter:
    """The weights of the head that is trained, [k d]."""
    (found,) = [p for name, p in model.named_parameters() if p.requires_grad and "score." in name]
    return found


@torch.inference_mode()
def read_last_states(model: Any, ids: Sequence[Sequence[int]]) -> Float[np.ndarray, "n d"]:
    """The state of each row's last token behind the final norm, in float32."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    training, decoder = model.training, whole.base_model
    model.eval()
    found: dict[int, np.ndarray] = {}
    for batch in cut_by_length(list(map(len, ids)), budget=BATCH_TOKENS):
        rows = [ids[i] for i in batch]
        padded = pad_right(rows, model.device)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype != torch.float32):
            states = run_decoder(decoder, {FINAL}, input_ids=padded, use_cache=False)[FINAL]
        found |= dict(zip(batch, last_states(states, rows).float().cpu().numpy(), strict=True))
    model.train(training)
    return np.stack([found[i] for i in range(len(ids))])
