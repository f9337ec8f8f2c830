"""Model folders that others made: looked at before a library reads them, so that whatever is wrong ends in one of our errors.

In: a name; a block that lets transformers, tokenizers, safetensors or gguf read.  Out: the folder; an error that names it, the
file where it is known, and what to do.  Cost: a listing, headers, JSON, a model without memory; one rendering of the template.

A folder is hostile until it is looked at: a size in config.json that the weights can't hold is refused before anything is
allocated, shards outside the folder are not read, and neither a kernel nor another decoder is fetched because a file names one.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch
from jinja2 import Environment, TemplateError, TemplateSyntaxError, nodes
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from armorm.bounds import shown
from armorm.errors import ArmormError, BackboneError, UserError
from armorm.features import template_trial
from armorm.user_files import unreadable

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
FACTS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", INDEX)
"""Files that hold a JSON object each."""
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
LARGEST_FACTS = 1 << 26
LARGEST_CONSTANT = 10**7
"""The largest number or text that a chat template may compute of its constants alone."""
MOST = 10_000
"""More layers, experts or labels has no model."""
VALUES_PER_BYTE = 8
"""Weights of one bit are the smallest that there are."""

_WIDTH = re.compile(r"[%:<>^=.+#, 0-](\d{8,40})")
_READ = (".json", ".jinja", ".safetensors", ".model", ".txt")
_COUNTED = ("layer", "experts", "labels", "depth", "blocks")
_SWITCHES: dict[str, tuple[bool | None, ...]] = {
    **dict.fromkeys(("return_dict", "is_causal"), (True, None)),
    **dict.fromkeys(("output_hidden_states", "output_attentions", "output_router_logits", "use_cache"), (True, False, None)),
}
"""What a pass needs of a decoder; the last ones it sets itself, and they only have to be switches."""

Said = Callable[[str], UserError]
"""Makes the error of what went wrong."""


@contextmanager
def loading_errors(said: Said) -> Iterator[None]:
    """Turns whatever a library raises in the block into the error that `said` makes of its first line; ours pass as they are."""
    try:
        yield
    except ArmormError:
        raise
    except SafetensorError as error:
        raise said(f"a safetensors file is damaged or cut short ({first_line(error)}): copy it again") from error
    except MemoryError as error:
        raise said("it takes more memory than there is: a size in its files is damaged, or the machine too small") from error
    except RecursionError as error:
        raise said("a file in it is nested too deeply, so it is damaged: copy it again") from error
    except Exception as error:  # the libraries raise dozens of unrelated kinds for a damaged file, tokenizers a plain Exception
        foreign = "trust_remote_code" in str(error)
        raise said("it comes with code of its own, which is never run" if foreign else first_line(error)) from error


def first_line(error: BaseException) -> str:
    """What an error says, on one line of bearable length."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 300 else f"{line[:300]}…"


def faults_in(error: ValidationError) -> str:
    """Which fields of a file are no such values, on one line."""
    faults = error.errors(include_url=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])


def backbone_error(name: str, use: str = "a backbone") -> Said:
    """Errors about a decoder that can't be loaded as what it was wanted for."""

    def said(fault: str) -> UserError:
        return BackboneError(
            f"{name} can't be loaded as {use}: {fault}. Name a folder with config.json, safetensors and tokenizer files, a .gguf "
            "file, or a hub id that this machine can reach"
        )

    return said


def folder_of(name: str, said: Said) -> Path | None:
    """The folder that a name means, `~` expanded; None where there is none. Raises what `said` makes of a name that is none's."""
    named = name if len(name) <= 200 else f"{name[:200]}…"
    if "\0" in name or not name.strip():
        raise said(f"{named.replace(chr(0), '?')!r} is no name of a model: give a folder or a hub id (owner/name)")
    try:
        place = Path(name).expanduser() if name.startswith("~") else Path(name)
        if not place.exists():
            return None
        if not place.is_dir():
            raise said(f"{named} is a file, no such folder; give the model's folder, with its config.json and weights")
        next(place.iterdir(), None)
    except RuntimeError as error:
        raise said(f"{named}: no such folder; there is no user of that name") from error
    except OSError as error:
        raise said(f"{named}: can't be read as a folder ({error.strerror}); give a model's folder that you may read") from error
    return place


def check_files(folder: Path, said: Said) -> None:
    """Raises what `said` makes of files in a folder that are none, no JSON objects, or that lead outside."""
    for place in sorted(folder.iterdir()):
        if place.suffix.lower() not in _READ:
            continue
        if not _is_plain(place):
            raise said(f"{place.name} is no ordinary file: copy the model's files again")
        if fault := unreadable(place):
            raise said(f"{place.name} {fault}: have its owner give you the right to read it")
    if (folder / ADAPTER).exists():
        raise said(
            "it holds an adapter (adapter_config.json) and not the decoder that it was trained on: merge the two with "
            "peft's `merge_and_unload()`, write the result with `save_pretrained`, and give that folder"
        )
    for name in FACTS:
        if (folder / name).is_file():
            _check_facts(folder / name, said)


def read_facts_in(file: Path, said: Said) -> dict[str, Any]:
    """A JSON object in a file. Raises what `said` makes where it is none."""
    try:
        if file.stat().st_size > LARGEST_FACTS:
            raise said(f"{file.name} is larger than {LARGEST_FACTS >> 20} MiB: copy it again")
        facts = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise said(f"{file.name} can't be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else first_line(error)
        raise said(f"{file.name} is no JSON, or damaged ({why}): copy it again") from error
    if not isinstance(facts, dict):
        raise said(f"{file.name} is damaged (it is a JSON {type(facts).__name__}, and no object): copy it again")
    return facts


def check_weights(folder: Path, said: Said) -> None:
    """Raises what `said` makes of a folder without safetensors, or whose index names files that are missing or outside."""
    if (folder / SINGLE).is_file():
        return
    if not (folder / INDEX).is_file():
        pickled = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in {".bin", ".pt", ".pth", ".ckpt"})
        what = f"only pickled weights ({', '.join(pickled[:2])}), which are never read" if pickled else "no weights"
        raise said(
            f"it holds {what}: it needs {SINGLE}, or {INDEX} and its shards. Download the safetensors, or load the "
            "model where you trust it and write them with its `save_pretrained`"
        )
    shards = _shards(folder, said)
    if outside := sorted(shard for shard in shards if Path(shard).name != shard or "\0" in shard):
        raise said(f"{INDEX} names {outside[0]!r}, which is no file beside it, and is not read: copy the folder again")
    if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
        raise said(f"it lacks {', '.join(missing[:3])} ({len(missing)} of {len(shards)} shards): copy or download them again")


def check_config(facts: Mapping[Any, Any], said: Said) -> None:
    """Raises what `said` makes of a config.json whose counts make a library's loops endless, whose switches are none or turn a
    decoder into something else, or that names code on the hub."""
    for key, value in facts.items():
        if key in _SWITCHES and not any(value is known for known in _SWITCHES[key]):
            raise said(f"config.json says {key}: {shown(value)}, with which it is no decoder that can be read: take the key out")
        counted = any(word in str(key) for word in _COUNTED) and isinstance(value, int | float)
        if counted and not -1 <= value <= MOST:
            raise said(f"config.json is damaged ({key}: {value}): copy it again")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if (named := facts.get(key)) and any("/" in str(one) for one in (named.values() if isinstance(named, dict) else [named])):
            raise said(f"config.json names code on the hub ({key}: {named}), which is never run: take the key out")
    for part in facts.values():
        if isinstance(part, dict):
            check_config(part, said)


def check_sizes(config: Any, weights: int | None, said: Said, build: Callable[[], Any]) -> None:
    """Raises what `said` makes of a config of more numbers than `weights` bytes can hold (None: not known before a download).

    `build` makes the model; it is called without memory for its tensors, and not at all where a loop would be endless.
    """
    text = config.get_text_config()
    sizes = {name: getattr(text, name, None) for name in ("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_size")}
    experts = [getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")]
    found = {name: size for name, size in sizes.items() if isinstance(size, int)}
    layers = found.get("num_hidden_layers", 0)
    if "num_hidden_layers" not in found:
        raise said("config.json names no number of layers: copy it again, or name a model with a causal decoder")
    if any(size < 0 for size in found.values()):
        raise said("config.json has a negative size: copy it again")
    blocks = layers * max([1, *(n for n in experts if isinstance(n, int))])
    width = max(1, found.get("hidden_size", 1))
    held = None if weights is None else VALUES_PER_BYTE * weights
    if layers > MOST or (held is not None and blocks * width > held):
        raise said(f"config.json says {layers:,} layers of width {width:,}, which {_size(weights)}: copy the files again")
    if held is None:
        return
    with torch.device("meta"):
        values = sum(math.prod(p.shape) for p in build().parameters())
    if values > held:
        raise said(f"config.json says sizes that make {values:,} weights, which {_size(weights)}: copy the files again")


def hold_weights(model: torch.nn.Module) -> None:
    """Copy weights that are a file mapped into memory: whoever writes into the file would change them, or end the process."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def weights_in(folder: Path | None) -> int | None:
    """Bytes of a folder's safetensors, headers read; None without a folder. Raises SafetensorError for a damaged file."""
    if folder is None:
        return None
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt"):
            pass
    return sum(file.stat().st_size for file in files)


def check_tokenizer(tokenizer: Any, said: Said, rows: int | None = None) -> None:
    """Raises what `said` makes of a chat template that is damaged or endless, or of more tokens than a decoder's `rows`."""
    if rows is not None and tokenizer.vocab_size > rows:
        raise said(f"its tokenizer knows {tokenizer.vocab_size:,} tokens, its decoder {rows:,}: copy both again, from one model")
    if not isinstance(tokenizer.model_max_length, int | float):
        raise said(f"tokenizer_config.json: model_max_length is {tokenizer.model_max_length!r}")
    tokenizer.decode(tokenizer.encode("a b"))
    template = getattr(tokenizer, "chat_template", None)
    if not template:
        return
    for text in template.values() if isinstance(template, dict) else [template]:
        if fault := _template_fault(text) or template_trial.trial_fault(text, _special_tokens(tokenizer)):
            raise said(f"its chat template is damaged ({fault}): copy chat_template.jinja and tokenizer_config.json again")
    if fault := _within(template_trial.SECONDS, lambda: _probed(tokenizer)):
        raise said(f"its chat template is damaged ({fault}): copy chat_template.jinja and tokenizer_config.json again")


def _special_tokens(tokenizer: Any) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)))


def _probed(tokenizer: Any) -> str | None:
    # A question with its answer is what every template takes; what it refuses in its own words is a matter for the renderer.
    texts = {"user": "a", "assistant": "b"}
    plain = [{"role": role, "content": text} for role, text in texts.items()]
    parted = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in texts.items()]
    faults = []
    for turns in (plain, parted):
        try:
            tokenizer.apply_chat_template(turns, tokenize=False)
        except TemplateError as error:
            if type(error) is TemplateError:  # `raise_exception`
                return None
            faults.append(first_line(error))
        except Exception as error:  # templates raise what they like
            faults.append(first_line(error))
        else:
            return None
    return f"it can't render a question with an answer: {faults[0]}"


def _within(seconds: float, work: Callable[[], str | None]) -> str | None:
    # What endless work says. A thread that never ends is left behind: Python has no way to stop one.
    told: SimpleQueue[str | None] = SimpleQueue()
    Thread(target=lambda: told.put(work()), daemon=True).start()
    try:
        return told.get(timeout=seconds)
    except Empty:
        return f"it takes more than {seconds:.0f} s for two words"


def _template_fault(text: Any) -> str | None:
    if not isinstance(text, str):
        return f"it is a {type(text).__name__}"
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols", template_trial.Generation]).parse(text)
    except TemplateSyntaxError as error:
        return f"line {error.lineno}: {error.message}"
    except RecursionError:
        return "it is nested too deeply"
    large = any(_extent(node) > LARGEST_CONSTANT for node in tree.find_all((nodes.Mul, nodes.Pow)))
    large |= any(_is_large(node.value) for node in tree.find_all(nodes.Const))
    return "it computes something enormous" if large else None


def _is_large(constant: Any) -> bool:
    # A number that is a length of something, or a text that formats a value to such a width.
    if isinstance(constant, str):
        return any(int(width) > LARGEST_CONSTANT for width in _WIDTH.findall(constant))
    return isinstance(constant, int | float) and abs(constant) > LARGEST_CONSTANT


def _extent(node: Any) -> float:
    # The size of what constants make: a number's own, a text's or list's length; 0 where something else takes part.
    if isinstance(node, nodes.Const):
        value = node.value
        return float(abs(value)) if isinstance(value, int | float) else float(len(value)) if isinstance(value, str) else 0.0
    if isinstance(node, nodes.List | nodes.Tuple):
        return float(len(node.items))
    if not isinstance(node, nodes.Mul | nodes.Pow):
        return 0.0
    left, right = _extent(node.left), _extent(node.right)
    try:
        return float(left) * float(right) if isinstance(node, nodes.Mul) else float(left) ** float(right)
    except OverflowError:
        return math.inf


def _is_plain(place: Path) -> bool:
    try:
        return stat.S_ISREG(place.stat().st_mode)
    except OSError:  # a link to nothing, or to itself
        return False


def _check_facts(file: Path, said: Said) -> None:
    facts = read_facts_in(file, said)
    if file.name == "config.json":
        check_config(facts, said)


def _shards(folder: Path, said: Said) -> set[str]:
    named = read_facts_in(folder / INDEX, said).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(shard, str) for shard in named.values()):
        raise said(f"{INDEX} is no index of safetensors (its `weight_map` is damaged): copy it again")
    return set(named.values())


def _size(weights: int | None) -> str:
    return "no decoder has" if weights is None else f"weights of {weights:,} bytes can't hold"
