"""The recipe: everything one training run needs, checked whole, every fault reported at once.

In: a YAML file.  Out: `Recipe` (plain values; the functions that do the work take those, not the recipe).
Cost: reading the file, and a look at the files that it names.
Environment variables (`${ARMORM_DATA}`) may stand in any path.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from armorm.bounds import BatchTokens, Finite, Name, Rows, Seed, Share, Strength, Tokens, readable, shown
from armorm.data.benchmarks.registry import benchmark
from armorm.data.files import Cells, expand
from armorm.data.made.kinds import KINDS, KindName, made_objectives
from armorm.data.made.naming import MadeEntry, RowKind, made_faults
from armorm.data.shapes import Columns
from armorm.data.sources.registry import objectives_of, pair_source, rating_source
from armorm.disk import folder_name
from armorm.errors import ArmormError, FitError, RecipeError
from armorm.features.nuisances import COMPUTED, RESPONSE_TOKENS, counts_style
from armorm.features.spec import FeatureSpec, Part, Pooling, parts_of
from armorm.fit.debias import Method as DebiasMethod
from armorm.fit.debias import Over
from armorm.fit.gate_settings import GateSettings
from armorm.fit.intervention import FEWEST
from armorm.judge_settings import JudgeSettings
from armorm.objectives import Objective, Objectives, ScaleMap
from armorm.rendering import Rendering
from armorm.small_files import expanded, read_yaml, shown_sentence, yaml_text
from armorm.tuning_settings import TrainingObjective, TuningRecipe
from armorm.user_files import is_file, stem_of

STARTER = "starter"
HELD_OUT = "held-out pairs"
"""What the pairs of the test split are called beside the suites."""
UNSEEN = "unseen sources"
"""What the sources are called that were left out one by one."""
PREFERRED = Objective(
    name="preferred",
    source="pairs",
    min=0,
    max=1,
    rater="whoever preferred",
    formula="a linear Bradley–Terry head",
)
"""The objective that is learnt from the pairs, where a recipe asks for it; 0.5 is the mean answer of a pair."""
MOST_OF_A_LIST = 1000
MOST_FAULTS = 40
"""Faults of a recipe that are told at once."""
_HUB_ID = re.compile(r"(?!\.)[\w.-]{1,96}(/(?!\.)[\w.-]{1,96})?", re.ASCII)


class _Settings(BaseModel):
    """A part of the recipe: keys that it doesn't know are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(_Settings):
    """Where rows come from: a public set by its name (`source`), a file or pattern (`path`), a data set of the hub (`hub`), or
    `builtin: starter`. The name alone will do: `ratings: [helpsteer, ultrafeedback]`. Or rows are made of other sources' answers:
    what is made under `made`, the names of these sources, or patterns, under `of`.

    With `source`, `path` is a local copy of the set's files, which is then read in place of the hub. `cap` keeps at most so many
    rows of each file, evenly over its strata, the same ones every time. `name` renames a single file's source (default: the set's
    name or the file's stem). `section` puts all its pairs into one section of a benchmark. `columns` and `cells`: what own files
    hold where. `share`: of the weight of all pairs, what the pairs that are made have together.
    """

    source: str | None = None
    path: str | None = None
    hub: str | None = None
    builtin: Literal["starter"] | None = None
    made: Annotated[list[KindName], Field(max_length=len(KINDS))] = []
    of: Annotated[list[str], Field(max_length=MOST_OF_A_LIST)] = []
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    name: Name | None = None
    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    cap: Rows | None = None
    section: str | None = None
    columns: Columns = Columns()
    cells: Cells = "auto"

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        places = (self.hub, self.builtin, *(() if self.source else (self.path,)), self.source, self.made or None)
        if sum(x is not None for x in places) != 1:
            raise ValueError("give exactly one of source, path, hub, builtin and made (a source may have a path besides)")
        if fault := self._made_fault():
            raise ValueError(fault)
        if self.hub and not _HUB_ID.fullmatch(self.hub):
            raise ValueError(f"hub: {shown(self.hub)} is no data set of the hub: give owner/name")
        if self.source and (self.subset or self.columns != Columns() or self.cells != "auto"):
            raise ValueError(f"{self.source} knows its own subset and columns: leave them out, or read the set by path or hub")
        return self

    def _made_fault(self) -> str:
        if not self.made:
            return "`of` and `share` are for rows that are made: say what under `made`" if self.of or self.share else ""
        if not self.of:
            return "of: missing; name the sources whose answers are changed"
        if len(set(self.made)) < len(self.made):
            return "made: names one kind twice"
        theirs = {"path", "split", "subset", "revision", "section", "columns", "cells"}
        given = self.model_dump(include=theirs, exclude_defaults=True)
        return f"made rows have no {' and no '.join(given)}: leave it out" if given else ""


class BackboneSettings(_Settings):
    """`model`: "smollm2" (embedded), a .gguf file, a folder, or a hub id; `rendering`: how conversations become tokens."""

    model: str = "smollm2"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    device: str = "auto"
    max_tokens: Tokens = 2048
    chat_template: str | None = None
    rendering: Rendering = Rendering()


class SplitSettings(_Settings):
    """Shares of the prompt groups: `test` chooses nothing, `validation` stops the gate, the rest trains."""

    validation: Share = 0.1
    test: Share = 0.1

    @model_validator(mode="after")
    def _some_left(self) -> SplitSettings:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


def _spec(text: str) -> str:
    try:
        return str(FeatureSpec.parse(text))
    except RecipeError as error:
        raise ValueError(str(error)) from None


def _response_spec(text: str) -> str:
    text = _spec(text)
    if any(p.pooling is Pooling.TURN for p in FeatureSpec.parse(text).parts):
        raise ValueError("only a prompt ends in a user's turn; pool an answer's features with last, closing or mean")
    return text


def _prompt_spec(text: str) -> str:
    text = _spec(text)
    if any(p.pooling is Pooling.CLOSING for p in FeatureSpec.parse(text).parts):
        raise ValueError("a prompt has no closing token; pool its features with last, turn or mean")
    return text


Spec = Annotated[str, AfterValidator(_response_spec)]
PromptSpec = Annotated[str, AfterValidator(_prompt_spec)]


class StoreToo(_Settings):
    """Features that no stage reads yet, saved in the same pass for later choices."""

    response: list[Spec] = Field(default=[], max_length=MOST_OF_A_LIST)
    prompt: list[PromptSpec] = Field(default=[], max_length=MOST_OF_A_LIST)


class FeatureSettings(_Settings):
    """`response`: one feature, or several candidates of which held-out probe quality chooses; `prompt`: the gate's.

    `engine`: who runs the decoder for what is not stored yet.
    """

    response: list[Spec] = Field(default=["final:last"], min_length=1, max_length=MOST_OF_A_LIST)
    prompt: PromptSpec = "final:last"
    store_too: StoreToo = StoreToo()
    store_dtype: Literal["float32", "bfloat16", "float16"] = "float16"
    shard_rows: Rows = 512
    batch_tokens: BatchTokens = 4096
    engine: Literal["own", "vllm"] = "own"

    @property
    def candidates(self) -> list[FeatureSpec]:
        """The response features to choose among."""
        return [FeatureSpec.parse(t) for t in self.response]

    @property
    def prompt_spec(self) -> FeatureSpec:
        """The feature that the gate reads."""
        return FeatureSpec.parse(self.prompt)

    def to_key(self) -> dict[str, Any]:
        """All settings as JSON but the engine, which the stores' own keys hold."""
        return self.model_dump(mode="json", exclude={"engine"})

    @property
    def parts(self) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """Every part to save: of responses, of prompts."""
        response = [FeatureSpec.parse(t) for t in self.store_too.response]
        prompt = [FeatureSpec.parse(t) for t in self.store_too.prompt]
        return parts_of([*self.candidates, *response]), parts_of([self.prompt_spec, *prompt])


class ProbeSettings(_Settings):
    """`alphas`: the strengths of the ridge to choose from, by cross-validation over `folds` of the prompts."""

    alphas: list[Strength] = Field(default=[10.0**e for e in range(-4, 9)], min_length=1, max_length=MOST_OF_A_LIST)
    folds: int = Field(default=5, ge=2, le=MOST_OF_A_LIST)
    intercept: bool = False


class DebiasSettings(_Settings):
    """`nuisances`: objectives, or computed ones ("response-tokens", "bold-spans", …); none switches the stage off.

    `method` says what λ is chosen by, `over` what is correlated. `reference`: names of the sources over whose answers the
    correlation is made zero (empty: all training pairs' answers); `padded`: how many of their answers get a padded copy.
    """

    nuisances: list[str] = []
    method: DebiasMethod = "spearman"
    over: Over = "pooled"
    itself: Literal["zeroed", "kept"] = "zeroed"
    reference: list[str] = []
    padded: Annotated[Rows, Field(ge=FEWEST)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> DebiasSettings:
        if self.nuisances and self.method in ("intervention", "agreed") and self.padded is None:
            raise ValueError(f"the method {self.method} needs padded copies of answers: say how many, such as `padded: 2000`")
        if self.padded is not None and not self.nuisances:
            raise ValueError(f"padded copies are for nuisances: name some, such as {RESPONSE_TOKENS}, or leave `padded` out")
        return self

    @property
    def styled(self) -> bool:
        """Whether a nuisance is counted in the answers' texts."""
        return counts_style(self.nuisances)

    def to_key(self) -> dict[str, Any]:
        """All settings as JSON; those that earlier versions had not are left out where they change nothing."""
        whole = self.model_dump(mode="json")
        return {name: value for name, value in whole.items() if (name, value) not in (("over", "pooled"), ("padded", None))}


class Suite(_Settings):
    """A benchmark: a published one by its name (`bench: [rewardbench]`; `path` is a local copy of its files), or pairs of your
    own from a `source`. `sections` renames sections or subsets of your own, e.g. {math-prm: reasoning, "hep-*": reasoning}.
    """

    name: Name = ""
    benchmark: str | None = None
    path: str | None = None
    cap: Rows | None = None
    source: Source | None = None
    sections: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        given = {"benchmark": given} if isinstance(given, str) else given
        named = isinstance(given, dict) and given.get("benchmark") and not given.get("name")
        return {**given, "name": given["benchmark"]} if named else given

    @model_validator(mode="after")
    def _one_kind(self) -> Suite:
        if (self.benchmark is None) == (self.source is None):
            raise ValueError("give either a benchmark's name or a source of pairs")
        if self.source and self.source.made:
            raise ValueError("a benchmark is not made of other sources' answers: give it a source of its own")
        if not self.name:
            raise ValueError("name: missing; add it")
        if self.benchmark and self.sections:
            raise ValueError(f"{self.benchmark} has sections of its own: leave `sections` out")
        if self.source and (self.path or self.cap):
            raise ValueError("give path and cap within the source")
        return self

    @property
    def limit(self) -> int | None:
        """At most so many items."""
        return self.source.cap if self.source else self.cap

    def section_of(self, section: str, subset: str) -> str:
        """The section that an item of this section and subset is put into."""
        for key in (subset, section):
            for pattern, name in self.sections.items():
                if key and fnmatch.fnmatch(key, pattern):
                    return name
        return section or subset or "all"


class RowCaps(_Settings):
    """At most so many rows of each source."""

    ratings: Rows | None = None
    pairs: Rows | None = None


class FixedWeightsRecipe(_Settings):
    """Weights that no prompt changes: a published `preset`, or your own `weights` by objective.

    `objectives` names what stands for a preset's attributes here, e.g. {helpfulness: just-eval-helpfulness}.
    """

    name: Name
    preset: str | None = None
    weights: dict[str, Finite] | None = None
    objectives: dict[str, str] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> FixedWeightsRecipe:
        if (self.preset is None) == (self.weights is None):
            raise ValueError("give either a preset's name or weights by objective")
        return self


class CompareRecipe(_Settings):
    """`armorm compare`: every method on the same items.

    At most `items` of each suite are scored. The methods of the recipe's own run always stand in the table; `train` adds
    decoders that are trained first (see `tuning`), and `rows` and `features` say on what, and with which features, stages 1 to 3
    are run again on the decoders trained to order pairs and to predict ratings, and on the frozen one beside them.
    """

    items: Rows | None = None
    train: list[TrainingObjective] = []
    rows: RowCaps = RowCaps()
    features: FeatureSettings | None = None
    fixed_weights: list[FixedWeightsRecipe] = []
    judges: list[JudgeSettings] = []


class Recipe(_Settings):
    """One training run, resolved.

    `objectives` is a file's path, an inline list, or "starter"; it may be left out where `ratings` names public sets, which bring
    their own, or where ratings are made. Those of public sets come first, in the released model's order, made ones last.
    `harmless` names sources, or sections of theirs, whose prompts ask for nothing harmful.
    """

    name: Name
    seed: Seed = 0
    backbone: BackboneSettings = BackboneSettings()
    objectives: str | list[dict[str, Any]] | None = None
    scale_map: dict[str, ScaleMap] = {}
    ratings: list[Source] = Field(min_length=1)
    pairs: list[Source] = Field(min_length=1)
    bench: list[Suite] = []
    harmless: Annotated[list[str], Field(max_length=MOST_OF_A_LIST)] = []
    on_fault: Literal["drop", "fail"] = "drop"
    splits: SplitSettings = SplitSettings()
    features: FeatureSettings = FeatureSettings()
    probe: ProbeSettings = ProbeSettings()
    debias: DebiasSettings = DebiasSettings()
    gate: GateSettings = GateSettings()
    tuning: TuningRecipe = TuningRecipe()
    compare: CompareRecipe = CompareRecipe()
    preferred: bool = False
    unseen_sources: bool = False
    examples: int = Field(default=6, ge=0, le=MOST_OF_A_LIST)

    def load_objectives(self) -> Objectives:
        """The objectives with the recipe's scale maps applied. Raises DataError naming every faulty entry."""
        named = objectives_of(s.source for s in self.ratings if s.source) if any(s.source for s in self.ratings) else ()
        own = {o.name: o for o in self._own_objectives()}
        made = made_objectives(kind for s in self.ratings for kind in s.made)
        if taken := [name for name in made.names if name in own or name in {o.name for o in named}]:
            raise RecipeError(f"objectives: {', '.join(taken)}: ratings of that name are made: give the objective another name")
        objectives = [own.pop(o.name, o) for o in named] + [*own.values(), *made]
        if self.preferred and PREFERRED.name in (o.name for o in objectives):
            raise RecipeError(f"objectives: {PREFERRED.name}: is learnt from the pairs: give the objective another name")
        if not objectives:
            raise RecipeError("objectives: missing; list them, name a file that does, or name public sets in `ratings`")
        return Objectives([o.model_copy(update=self._map_of(o.name)) for o in objectives])

    def _own_objectives(self) -> Iterable[Objective]:
        if self.objectives is None:
            return ()
        if isinstance(self.objectives, list):
            return Objectives.from_json(self.objectives, where="recipe: objectives")
        if self.objectives == STARTER:
            from armorm.data.starter import build

            return build(self.seed).objectives
        return Objectives.from_file(expanded(self.objectives))

    @property
    def made(self) -> list[MadeEntry]:
        """What is made of other sources' answers, in order."""
        kinds: dict[RowKind, list[Source]] = {"ratings": self.ratings, "pairs": self.pairs}
        return [
            MadeEntry(kind, tuple(s.made), tuple(s.of), s.name or "made", s.cap, s.share)
            for kind, listed in kinds.items()
            for s in listed
            if s.made
        ]

    @property
    def pair_shares(self) -> list[tuple[list[str], float]]:
        """Sources of pairs that together have a share of the weight, and the share."""
        return [(list(entry.names), entry.share) for entry in self.made if entry.share is not None]

    def _map_of(self, name: str) -> dict[str, ScaleMap]:
        return next(({"scale_map": m} for pattern, m in self.scale_map.items() if fnmatch.fnmatch(name, pattern)), {})

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as it may be loaded again."""
        return yaml_text(self.model_dump(mode="json"))


def load_recipe(path: Path | str) -> Recipe:
    """Read and check a recipe. Raises RecipeError with every fault, each with its key and a remedy."""
    path = Path(path)
    given = read_yaml(path, "recipe", remedy="the project's own are in recipes/")
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    try:
        recipe = Recipe.model_validate(given)
    except ValidationError as error:
        faults = [_sentence(e) for e in error.errors()] + [f for _, f in _unset_variables(given)]
        raise RecipeError(_all_faults(path, faults)) from None
    except FitError as error:  # settings that contradict each other
        raise RecipeError(_all_faults(path, [str(error)])) from None
    if faults := list(_contradictions(recipe, given)):
        raise RecipeError(_all_faults(path, faults))
    return recipe


def _all_faults(path: Path, faults: list[str]) -> str:
    more = [f"and {len(faults) - MOST_FAULTS:,} more"] if len(faults) > MOST_FAULTS else []
    told = [*map(readable, faults[:MOST_FAULTS]), *more]
    return f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}\n" + "\n".join(f"  - {f}" for f in told)


def _sentence(error: Mapping[str, Any]) -> str:
    key = ".".join(str(x) for x in error["loc"])
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        names = _fields_at(error["loc"][:-1])
        close = difflib.get_close_matches(str(error["loc"][-1]), names, n=1)
        return f"{key}: no such key" + (f"; did you mean {close[0]!r}?" if close else f"; the keys here are {', '.join(names)}")
    if error["type"] == "missing":
        return f"{key}: missing; add it"
    seen = "" if key.endswith("key_env") else f" (got {shown(error.get('input'))})"  # it may be the key itself
    return f"{key}: {error['msg'].removeprefix('Value error, ')}{seen}"


def _fields_at(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for step in loc:
        if isinstance(step, int):
            continue
        model = next(_models_in(_annotations(model).get(step)), None)
    return list(_annotations(model))


def _annotations(model: Any) -> dict[str, Any]:
    if is_dataclass(model):
        return get_type_hints(model)
    return {name: field.annotation for name, field in model.model_fields.items()} if model else {}


def _models_in(annotation: Any) -> Iterator[Any]:
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or is_dataclass(annotation)):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _unset_variables(given: Any) -> Iterator[tuple[str, str]]:
    for name in sorted({name for text in _texts_in(given) for name in re.findall(r"\$\{(\w+)\}", text)}):
        if name not in os.environ:
            yield name, f"the environment variable {name} is not set: {name}=/path/to/it armorm train …"


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts_in(inner)


def _contradictions(recipe: Recipe, given: Any) -> Iterator[str]:
    unset = dict(_unset_variables(given))
    yield from unset.values()
    unknown = list(_unknown_names(recipe))
    yield from unknown
    if "ARMORM_DATA" not in unset:
        if not unknown:
            try:
                known = recipe.load_objectives().names
            except ArmormError as error:
                yield str(error)
            else:
                yield from _unknown_nuisances(recipe, known)
        yield from _missing_files(recipe)
    if recipe.backbone.chat_template and not is_file(expanded(recipe.backbone.chat_template)):
        yield f"backbone.chat_template: no such file: {shown_sentence(recipe.backbone.chat_template)}"
    if recipe.features.engine == "vllm" and recipe.backbone.device != "auto":
        yield f"backbone.device: vLLM chooses it (got {shown(recipe.backbone.device)}): leave it out, or `features.engine`"
    yield from _made_faults(recipe)
    yield from _shared_names("bench", [s.name for s in recipe.bench])
    yield from _shared_names("compare.judges", [j.name for j in recipe.compare.judges])
    yield from _shared_names("compare.fixed_weights", [w.name for w in recipe.compare.fixed_weights])
    for ours, what in ((HELD_OUT, "the test split's pairs are"), (UNSEEN, "the sources that are left out are")):
        if ours in (s.name for s in recipe.bench):
            yield f"bench: {ours!r} is what {what} called: give the suite another name"


def _shared_names(key: str, names: Sequence[str]) -> Iterator[str]:
    # Names that are the same, or that would be one folder (on some file systems case makes no difference).
    if twice := sorted({n for n in names if names.count(n) > 1}):
        yield f"{key}: named twice: {', '.join(twice)}"
    places: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        places.setdefault(folder_name(name).casefold(), []).append(name)
    for alike in (alike for alike in places.values() if len(alike) > 1):
        yield f"{key}: {' and '.join(map(repr, alike))} would share a folder: give one another name"


def _unknown_names(recipe: Recipe) -> Iterator[str]:
    sources: list[tuple[str, Callable[[str], Any], str | None]] = [
        *(("ratings", rating_source, s.source) for s in recipe.ratings),
        *(("pairs", pair_source, s.source) for s in recipe.pairs),
        *(("bench", benchmark, s.benchmark) for s in recipe.bench),
        *((f"bench {s.name}", pair_source, s.source.source) for s in recipe.bench if s.source),
    ]
    for key, find, name in sources:
        if name is not None:
            try:
                find(name)
            except ArmormError as error:
                yield f"{key}: {error}"


def _made_faults(recipe: Recipe) -> Iterator[str]:
    if not recipe.made:
        return
    kinds: dict[RowKind, list[Source]] = {"ratings": recipe.ratings, "pairs": recipe.pairs}
    natural: dict[RowKind, list[str]] | None = None
    with suppress(ArmormError, OSError, ValueError, RuntimeError):  # a file that is missing is a fault of its own
        natural = {kind: [n for s in listed if not s.made for n in _names_of(s, kind)] for kind, listed in kinds.items()}
    for kind, names in (natural or {}).items():
        yield from _shared_names(kind, [*names, *(name for e in recipe.made if e.rows == kind for name in e.names)])
    yield from made_faults(recipe.made, natural, recipe.harmless)


def _names_of(source: Source, kind: RowKind) -> list[str]:
    # The sources that an entry becomes.
    if source.builtin:
        from armorm.data.starter import build

        built = build(0)
        return sorted({row.source for row in (built.ratings if kind == "ratings" else built.pairs)})
    if source.name or source.path is None or source.source:
        return [source.name or source.source or source.hub or ""]
    return [stem_of(file) for file in expand(source.path)]


def _unknown_nuisances(recipe: Recipe, known: tuple[str, ...]) -> Iterator[str]:
    for name in recipe.debias.nuisances:
        if name not in known and name not in COMPUTED:
            yield f"debias.nuisances: {name!r} is neither an objective ({', '.join(known)}) nor computed ({', '.join(COMPUTED)})"


def _missing_files(recipe: Recipe) -> Iterator[str]:
    sources: list[tuple[str, Source | Suite]] = [
        *(("ratings", s) for s in recipe.ratings),
        *(("pairs", s) for s in recipe.pairs),
        *((f"bench {s.name}", s.source or s) for s in recipe.bench),
    ]
    for key, source in sources:
        if source.path is not None:
            whole = isinstance(source, Suite) or source.source is not None
            try:
                expand(source.path, folders=whole)
            except (ArmormError, OSError, ValueError, RuntimeError) as error:  # too long, with a NUL, of a user who is not here
                yield f"{key}: {error if isinstance(error, ArmormError) else f'{shown(source.path)}: is no path ({error})'}"
