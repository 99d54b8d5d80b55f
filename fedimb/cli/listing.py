"""``fedimb list``: the parts to choose from, their settings, and what each makes a site send."""

import argparse
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.output.parts import Combinations, ListedPart, PartsListing
    from fedimb.cli.verbs import Verbs
    from fedimb.registry import Entry

_ABOUT = """\
List the parts of a run, fedimb's own and those of installed packages:

  fedimb list                   all kinds
  fedimb list losses            one kind (strategies: with all their settings)
  fedimb list strategies scope  one part, with its settings, their defaults and meaning
  fedimb list combinations      which parts cannot be combined, and why

The columns:

  prior          class counts the part needs: local counts stay at the site, global counts are summed over all sites
  leaves a site  what a site sends when the part is used: the model's weights, and the records x.* that the method
                 declares and a filter at each site checks
  flags          further facts that decide what can be combined:
    multilabel        works on data with several labels per row (losses, calibrations, ... without it do not)
    stackable         several clients can be trained at once in one process (engine.trainer=stacked)
    linear            needs only the weighted mean of the clients' weights; the others do not work with privacy.noise
    adjusts logits    corrects for class imbalance; two such corrections are refused
    changes head      rescales the classifier's last layer after training
    cycles            repeats query and training in cycles; only one strategy of a run may
    prior view ...    which rows the class counts cover: labelled, coreset, ...
    sets prior        provides the class counts itself
    reveals counts    sends class counts in the clear, so a private prior.provenance is refused
    own aggregator    aggregates the clients' weights itself: only with aggregator=fedavg
    weighs clients    gives clients other weights than their rows, so privacy.noise is refused
    chooses rows      decides which rows a client trains on
    reads labels      needs the label of every row
    asks for labels   labels rows during the run (active learning)
    needs start loss  each client also reports its loss before training
    client scalars    each client also reports the named number
    needs aggregator  works only with that aggregator
    needs loss        works only with that loss
    needs head        works only with that model.head
    distils           learns from the received model's predictions too
    builds head       computes the head itself, for models with a linear one
    two views         compares two views of each row, so an augmentation that mixes rows is refused
    innermost         has no other method inside: the last of several
    resamples         draws, adds or leaves out rows by class, so that the model's probabilities are those of another
                      class prior
    never leaves      makes rows from which real ones can be reconstructed: they are never written or sent
    folds             trains again without each of so many folds of the rows
    keeps update      keeps a copy of the update at the client, so privacy.clip is refused
    any pace          works without rounds too (pace=buffered, pace=fedasync); the others do not
    asynchronous      has no rounds: updates are applied as they arrive
    other models      trains another model than the classifier too, so paces that cut rounds short are refused
    paced             not every client asked counts in a round, so privacy.noise is refused"""

PLURALS = {
    "strategies": "strategy",
    "aggregators": "aggregator",
    "losses": "loss",
    "samplers": "sampler",
    "resamplers": "resampler",
    "calibrations": "calibration",
    "objectives": "objective",
    "augmentations": "augmentation",
    "models": "model",
    "sources": "source",
    "partitions": "partition",
    "encoders": "encoder",
    "coresets": "coreset",
    "queries": "query",
    "generators": "generator",
    "attacks": "attack",
    "paces": "pace",
    "explanations": "explanation",
}
OLD_PLURALS = {"terms": "objectives", "term": "objectives"}  # they go with the next release
_SENDING = ("strategy", "aggregator", "loss", "calibration", "objective", "explanation")
_SETTING_WIDTH = 24  # of the column of defaults: mappings are wrapped
_SHOWN_ELSEWHERE = (
    *("needs_prior", "uses_local_counts", "sends", "tasks", "own_loss", "chooses_around", "labelled_by"),
    *("needs_head_bias", "own_head", "head_kind", "no_posterior", "tau_rule", "task_remedy", "needs_objective"),
    *("own_models", "needs_private", "by_array", "forges_counts", "trains_no_client", "sets_prior", "freezes"),
    *("moves_alone", "read_with", "unread_with", "trains_nothing", "mirrors"),
)
_WIDTHS = {"prior": 6, "leaves a site": 13, "flags": 16}  # columns, longer words aside; the sentence takes the rest


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    listing = verbs.add_parser(
        "list",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listing.add_argument("kind", nargs="?", metavar="KIND", help=f"{', '.join(PLURALS)}; or combinations")
    listing.add_argument("name", nargs="?", metavar="NAME", help="a part of that kind: show its settings")
    listing.set_defaults(handler=list_parts)


def list_parts(args: argparse.Namespace) -> "PartsListing | Combinations":
    """``fedimb list [kind [name]]``."""
    from fedimb import registry
    from fedimb.cli.output.parts import Combinations, Pair, PartsListing
    from fedimb.errors import ConfigError, nearest

    if args.kind == "combinations":
        from fedimb.cli.matrix import render
        from fedimb.config.combinations import matrix

        cells = matrix()
        if not args.json:
            print(render(cells))
        pairs = [Pair(first=c.first, second=c.second, allowed=c.reason is None, reason=c.reason) for c in cells]
        return Combinations(pairs=pairs)
    kind = PLURALS.get(OLD_PLURALS.get(args.kind, args.kind), args.kind)
    if kind is not None and kind not in PLURALS.values():
        raise ConfigError(f"no kind '{args.kind}'.{nearest(args.kind, [*PLURALS, 'combinations'])}")
    if args.name is not None:
        entry = registry.get(str(kind), args.name)
        if not args.json:
            print("\n".join([*table([entry]), *settings_table(entry)]))
        return PartsListing(parts=[_listed(entry)])
    chosen = {plural: each for plural, each in PLURALS.items() if kind in (None, each)}
    found = []
    for position, (plural, each) in enumerate(chosen.items()):
        entries = [registry.get(each, name) for name in registry.names(each)]
        found += entries
        if args.json:
            continue
        print(f"{chr(10) if position else ''}{plural}:")
        print("\n".join(table(entries)) if entries else "  none")
        if kind == "strategy":
            print("\n".join(line for entry in entries for line in settings_table(entry)))
    return PartsListing(parts=[_listed(entry) for entry in found])


def _listed(entry: "Entry") -> "ListedPart":
    from fedimb.cli.output.parts import ListedPart, PartSetting
    from fedimb.registry.arguments import docs_of

    docs = docs_of(entry.factory)
    return ListedPart(
        kind=entry.kind,
        name=entry.name,
        about=sentence(entry),
        prior=prior_of(entry),
        leaves_a_site=leaves(entry) if entry.kind in _SENDING else "",
        flags=flags_of(entry),
        settings=[
            PartSetting(name=name, default=default_of(parameter), about=docs.get(name, "").replace("`", ""))
            for name, parameter in _settings_of(entry).items()
        ],
    )


def _settings_of(entry: "Entry") -> dict[str, inspect.Parameter]:
    """The arguments of a part that a configuration sets."""
    from fedimb.config.validate import GIVEN
    from fedimb.registry.arguments import parameters_of

    open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    fields = getattr(entry.factory, "__dataclass_fields__", {})
    found = {}
    for name, parameter in parameters_of(entry.factory).items():
        if name in GIVEN[entry.kind] or parameter.kind in open_ended:
            continue
        if name in fields and callable(make := fields[name].default_factory):  # such as an empty list
            parameter = parameter.replace(default=make())
        found[name] = parameter
    return found


def table(entries: "list[Entry]") -> list[str]:
    """Lines below 100 columns, indented by two: name, description, and the columns that apply to this kind."""
    from fedimb.text import WIDTH

    columns: dict[str, Callable[[Entry], str]] = {"prior": prior_of, "leaves a site": leaves, "flags": flags_of}
    cells = {title: [cell(entry) for entry in entries] for title, cell in columns.items()}
    if entries[0].kind not in _SENDING:
        del cells["leaves a site"]
    cells = {title: texts for title, texts in cells.items() if any(text not in ("", "none") for text in texts)}
    names = [entry.name for entry in entries]
    widths = {"name": max(4, *map(len, names))}
    widths |= {title: _width(title, texts) for title, texts in cells.items()}
    about = WIDTH - 2 - sum(width + 2 for width in widths.values())
    widths = {"name": widths["name"], "what it does": about} | {title: widths[title] for title in cells}
    rows = [list(widths)]
    rows += [list(row) for row in zip(names, map(sentence, entries), *cells.values(), strict=True)]
    return [line for row in rows for line in _lines(row, list(widths.values()))]


def settings_table(entry: "Entry") -> list[str]:
    """Lines below 100 columns: a blank line, a title, and each setting with its default and meaning."""
    from fedimb.registry.arguments import docs_of
    from fedimb.text import WIDTH

    docs, own = docs_of(entry.factory), _settings_of(entry)
    if not own:
        return ["", f"{entry.kind} {entry.name} has no settings"]
    rows = [["setting", "default", "meaning"]]
    rows += [
        [name, default_of(parameter), docs.get(name, "").replace("`", "").rstrip(".")]
        for name, parameter in own.items()
    ]
    names, defaults = (max(len(row[column]) for row in rows) for column in (0, 1))
    widths = [names, max(_SETTING_WIDTH, *(len(word) for row in rows for word in row[1].split()))]
    widths[1] = min(widths[1], defaults)
    widths.append(WIDTH - 2 - sum(width + 2 for width in widths))
    return ["", f"settings of {entry.kind} {entry.name}:", *(line for row in rows for line in _lines(row, widths))]


def default_of(parameter: inspect.Parameter) -> str:
    """A setting's default in YAML; ``required`` if it has none."""
    import yaml

    if parameter.default is parameter.empty:
        return "required"
    value = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...")


def _width(title: str, texts: list[str]) -> int:
    words = [word for text in texts for word in text.split()]
    return max(min(_WIDTHS[title], max(map(len, texts))), len(title), *map(len, words))


def _lines(row: list[str], widths: list[int]) -> list[str]:
    """One table row, cells wrapped within their columns."""
    cells = zip(row, widths, strict=True)
    wrapped = [textwrap.wrap(text, width, break_on_hyphens=False) or [""] for text, width in cells]
    lines = []
    for at in range(max(map(len, wrapped))):
        parts = [lines_of[at] if at < len(lines_of) else "" for lines_of in wrapped]
        lines.append("  " + "  ".join(part.ljust(w) for part, w in zip(parts, widths, strict=True)).rstrip())
    return lines


def sentence(entry: "Entry") -> str:
    """First sentence of the part's docstring, or of its module's if the former only explains arguments."""
    import inspect

    own = inspect.getdoc(entry.factory) or ""
    generated = f"{getattr(entry.factory, '__name__', entry.name)}("  # the generated docstring of a dataclass
    if not own or own.startswith(("Args:", generated)):
        own = inspect.getdoc(inspect.getmodule(entry.factory)) or ""
    paragraph = " ".join(own.partition("\n\n")[0].partition("\nArgs:")[0].split())
    return _first_sentence(paragraph.replace("`", ""))


def _first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence: 'et al. 2019' and 'i.e. this' do not."""
    start = 0
    while (stop := text.find(". ", start)) >= 0:
        word = text[:stop].rpartition(" ")[2]
        if word not in ("al", "cf", "eq", "vs", "Eq", "Sec") and "." not in word and text[stop + 2].isupper():
            return text[:stop]
        start = stop + 2
    return text.rstrip(".")


def prior_of(entry: "Entry") -> str:
    """Class counts a part needs: none, its own site's, or summed over all sites."""
    if entry.flags.get("needs_prior"):
        return "global counts"
    return "local counts" if entry.flags.get("uses_local_counts") else "none"


def leaves(entry: "Entry") -> str:
    """What a site sends because of this part.

    Always the model's weights, class counts if a prior is gathered, and the records its contract declares.
    """
    from fedimb import registry
    from fedimb.contracts.platform import CLASS_COUNTS, PLATFORM

    sent = ["weights"] if entry.kind != "explanation" else []
    if entry.flags.get("needs_prior"):
        sent += [record.key for record in PLATFORM.queries[CLASS_COUNTS] if not record.optional]
    sent += [record.key for record in entry.flags.get("sends", ())]
    if entry.kind == "aggregator":  # the local objectives that work with no other aggregator
        objectives = [registry.flags("objective", name) for name in registry.names("objective")]
        own = [flags for flags in objectives if flags.get("needs_aggregator") == entry.name]
        sent += [record.key for flags in own for record in flags.get("sends", ())]
    if entry.name in registry.names("contract"):
        contract = registry.build("contract", entry.name)
        records = [*contract.train, *(record for query in contract.queries.values() for record in query)]
        sent += [record.key for record in records]
    return ", ".join(dict.fromkeys(sent)) or "nothing"


def flags_of(entry: "Entry") -> str:
    """The other flags that are set, in words."""
    shown = _in_words({name: value for name, value in entry.flags.items() if name != "when"})
    shown += ["multilabel"] if "multilabel" in entry.flags.get("tasks", ()) else []
    for (setting, value), flags in entry.flags.get("when", {}).items():
        if words := _in_words(flags):
            shown.append(f"{' and '.join(words)} with {setting}={str(value).lower()}")
    return ", ".join(shown)


def _in_words(flags: Mapping[str, object]) -> list[str]:
    wanted = {name: value for name, value in flags.items() if value and name not in _SHOWN_ELSEWHERE}
    told = {name: " and ".join(value) if isinstance(value, tuple) else value for name, value in wanted.items()}
    return [name.replace("_", " ") + ("" if value is True else f" {value}") for name, value in told.items()]
