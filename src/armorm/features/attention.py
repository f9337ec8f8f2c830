"""Attention of packed sequences: each branch of a row attends to the branches it follows and, causally, to itself. No padding.

In: a row's queries, keys and values, as transformers' attention interface hands them over, and the `Plan` that the attention
module of this one pass carries.  Out: what the heads give, [1 t heads width].
Cost: t × keys seen, and one copy of keys and values. On a CPU in blocks that stay in its cache, on a GPU by the kernel for
variable lengths where torch has it, else by torch's own attention, branch by branch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from armorm.features.prefixes import Branch

NAME = "armorm_packed"
ROWS = 128
"""Queries of a block: few enough that its scores stay in the cache, and that little behind the diagonal is computed."""
STEP = 16
"""Blocks have a multiple of so many queries: a matrix product of a new shape costs oneDNN a millisecond."""
KEYS = 2**16
"""Keys of a group of branches on a GPU, where each branch has its whole path's: without a bound, many short answers behind a long
prompt would have it copied for each."""
NO_MATTER = frozenset({"position_ids", "use_cache", "cache_position", "output_attentions", "output_hidden_states", "is_causal"})
"""What decoders hand to every attention function and a causal pass without cache needs not."""


class CannotPackError(Exception):
    """This decoder's attention wants something that the packed pass does not have."""


@dataclass(frozen=True, slots=True)
class Group:
    """Branches side by side for one call of a kernel: the row's queries `rows`, and where each branch's queries and keys end.

    `keys` are the places in the row of all their keys, each branch's whole path; None where these are the row itself.
    """

    rows: slice
    query_ends: Tensor
    key_ends: Tensor
    keys: Tensor | None
    most_queries: int
    most_keys: int


@dataclass
class Plan:
    """The branches of a row in order, and what attention layers share during one pass.

    `calls` counts the layers that have asked so far, `windows` gathers the sliding windows that they asked for.
    """

    branches: Sequence[Branch]
    device: torch.device
    calls: int = 0
    windows: list[int] = field(default_factory=list)
    biases: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """Tokens of the longest path."""
        return max(b.before + len(b) for b in self.branches)

    def bias(self, rows: range, keys: range, window: int | None, heads: int, dtype: torch.dtype) -> Float[Tensor, "r m"]:
        """What is added to the scores of queries at `rows` (each `heads` times in turn) for keys at `keys`: 0, or −∞ where
        a key is not seen."""
        known = (rows.start - keys.start, len(rows), len(keys), window, heads, dtype)
        if known not in self.biases:
            ahead = torch.arange(keys.start, keys.stop) - torch.arange(rows.start, rows.stop)[:, None]
            hidden = (ahead > 0) if window is None else (ahead > 0) | (ahead <= -window)
            bias = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
            self.biases[known] = bias.repeat_interleave(heads, dim=0).to(self.device, dtype)
        return self.biases[known]

    @cached_property
    def groups(self) -> list[Group]:
        """The branches in groups for kernels that take variable lengths, each of at most `KEYS` keys or of one branch."""
        groups, members, places, ends, on_path = list[Group](), list[Branch](), list[int](), [0], list[int]()
        shared = any(b.before for b in self.branches)  # else the row is its own keys
        for b in self.branches:
            del on_path[b.before :]
            on_path += range(b.start, b.stop)
            if shared and members and len(places) + len(on_path) > KEYS:
                groups.append(self._group(members, ends, places))
                members, places, ends = [], [], [0]
            members.append(b)
            places += on_path
            ends.append(len(places))
        return [*groups, self._group(members, ends, places if shared else None)]

    def _group(self, members: Sequence[Branch], ends: Sequence[int], places: Sequence[int] | None) -> Group:
        starts = [b.start - members[0].start for b in members]
        rows = slice(members[0].start, members[-1].stop)
        return Group(
            rows,
            torch.tensor([*starts, rows.stop - rows.start], dtype=torch.int32, device=self.device),
            torch.tensor(ends, dtype=torch.int32, device=self.device),
            None if places is None else torch.tensor(places, device=self.device),
            max(map(len, members)),
            max(b.before + len(b) for b in members),
        )


def attend(
    module: Any,
    query: Float[Tensor, "1 h t c"],
    key: Float[Tensor, "1 g t c"],
    value: Float[Tensor, "1 g t v"],
    attention_mask: Any = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Float[Tensor, "1 t h v"], None]:
    """The attention function that transformers' modules call, by the plan that `module` carries.

    Raises CannotPackError for what would change the result and is not computed here.
    """
    plan: Plan | None = module.__dict__.get("plan")
    wanted = sorted(name for name, setting in others.items() if name not in NO_MATTER and setting is not None)
    if plan is None or wanted or dropout or attention_mask is not None or others.get("is_causal") is False:
        raise CannotPackError(f"{type(module).__name__} hands over {wanted}")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    plan.calls += 1
    window = None
    if sliding_window:
        plan.windows.append(sliding_window)
        window = sliding_window if plan.longest > sliding_window else None
    return _way(query)(plan, query[0], key[0], value[0], scale, window)[None], None


AttentionInterface.register(NAME, attend)


def _way(query: Tensor) -> Callable[..., Tensor]:
    if query.device.type == "cpu":
        return _in_blocks
    small = query.dtype in (torch.bfloat16, torch.float16) and query.shape[-1] <= 256
    if query.device.type == "cuda" and small and _varlen_settings() >= {"window_size", "scale"}:
        return _by_lengths
    return _branch_by_branch


def _in_blocks(plan: Plan, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    (h, t, _), g = query.shape, key.shape[0]
    per = h // g  # query heads of a key head
    queries = query.view(g, per, t, -1).permute(0, 2, 1, 3)  # g t per c
    out = query.new_empty(t, g, per, value.shape[-1])
    for branch, keys, values in _paths(plan, key, value):
        for start in range(0, len(branch), ROWS):
            stop = min(start + ROWS, len(branch))
            rows = range(branch.before + start, branch.before + start + _rounded(stop - start))
            first = 0 if window is None else max(0, rows.start - window + 1)
            block = query.new_zeros(g, len(rows), per, query.shape[-1])
            block[:, : stop - start] = queries[:, branch.start + start : branch.start + stop]
            block = block.view(g, len(rows) * per, -1)
            near = keys[:, first : rows.stop]
            scores = torch.baddbmm(block.new_empty(()), block, near.transpose(1, 2), beta=0, alpha=scale)
            seen = range(first, rows.stop) if window else rows  # without a window all keys in front of the rows are seen
            scores[:, :, -len(seen) :] += plan.bias(rows, seen, window, per, scores.dtype)
            found = torch.bmm(scores.softmax(dim=-1), values[:, first : rows.stop])  # over keys
            found = found.view(g, len(rows), per, -1)[:, : stop - start]
            out[branch.start + start : branch.start + stop] = found.transpose(0, 1)
    return out.view(t, h, -1)


def _branch_by_branch(plan: Plan, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    out = query.new_empty(query.shape[1], query.shape[0], value.shape[-1])
    for branch, keys, values in _paths(plan, key, value):
        rows = range(branch.before, branch.before + len(branch))
        masked = bool(branch.before) or (window is not None and rows.stop > window)
        found = scaled_dot_product_attention(
            query[None, :, branch.start : branch.stop],
            keys[None, :, : rows.stop],
            values[None, :, : rows.stop],
            attn_mask=plan.bias(rows, range(rows.stop), window, 1, query.dtype) if masked else None,
            is_causal=not masked,
            scale=scale,
            enable_gqa=query.shape[0] != key.shape[0],
        )
        out[branch.start : branch.stop] = found[0].transpose(0, 1)
    return out


def _by_lengths(plan: Plan, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    how: dict[str, Any] = {"scale": scale, "window_size": (-1 if window is None else window - 1, 0)}
    repeated = query.shape[0] // key.shape[0]
    if repeated > 1 and "enable_gqa" in _varlen_settings():
        how["enable_gqa"], repeated = True, 1
    q, k, v = (x.transpose(0, 1) for x in (query, key, value))
    found: list[Any] = []
    for group in plan.groups:
        keys, values = (k, v) if group.keys is None else (k[group.keys], v[group.keys])
        if repeated > 1:
            keys, values = (x.repeat_interleave(repeated, dim=1) for x in (keys, values))
        lengths = group.query_ends, group.key_ends, group.most_queries, group.most_keys
        found.append(varlen_attn(q[group.rows].contiguous(), keys.contiguous(), values.contiguous(), *lengths, **how))
    return torch.cat(found) if len(found) > 1 else found[0]


@lru_cache
def _varlen_settings() -> frozenset[str]:
    # What torch's attention for several lengths can be told; nothing where this torch has none.
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


def _paths(plan: Plan, key: Tensor, value: Tensor) -> Iterator[tuple[Branch, Tensor, Tensor]]:
    # Each branch with the keys and values of its whole path, in buffers that the next one overwrites behind what both follow.
    room = plan.longest + STEP
    keys, values = key.new_zeros(key.shape[0], room, key.shape[2]), value.new_zeros(value.shape[0], room, value.shape[2])
    for b in plan.branches:
        stop = b.before + len(b)
        keys[:, b.before : stop] = key[:, b.start : b.stop]
        values[:, b.before : stop] = value[:, b.start : b.stop]
        keys[:, stop : stop + STEP] = 0  # rounded up blocks reach there, and no mask hides a NaN of the branch before
        values[:, stop : stop + STEP] = 0
        yield b, keys, values


def _rounded(rows: int) -> int:
    return -(-rows // STEP) * STEP
