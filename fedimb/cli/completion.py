"""``fedimb completion bash|zsh|fish``: a script that completes verbs, options, names of parts and runs.

The script holds the words themselves, read from the parsers and the registry when it is printed, so that completing
takes no start of Python; print it again after installing a package with parts.
"""

import argparse
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedimb.cli.verbs import Verbs

_ABOUT = """\
Print a script that completes verbs, options, settings (loss=, strategy=, ... with the names of the parts) and the
names of runs below runs/.

  fedimb completion bash > ~/.local/share/bash-completion/completions/fedimb
  fedimb completion zsh > ~/.zfunc/_fedimb            a folder in $fpath, before compinit
  fedimb completion fish > ~/.config/fish/completions/fedimb.fish

Print it again after installing or removing parts."""

SHELLS = ("bash", "zsh", "fish")


def register(verbs: "Verbs") -> None:
    """Add the verb to ``argparse``'s subparsers."""
    completion = verbs.add_parser(
        "completion", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    completion.set_defaults(handler=completion_command)


def completion_command(args: argparse.Namespace) -> int:
    """``fedimb completion``."""
    table = collect()
    print({"bash": bash, "zsh": zsh, "fish": fish}[args.shell](table), end="")
    return 0


@dataclass(frozen=True)
class Table:
    """What can be typed.

    Attributes:
        next: words that may follow a beginning of a command: ``""`` -> verbs, ``"runs"`` -> its actions.
        options: options of a command.
        values: (command, option) -> its words; ``RUN``: names of runs; ``FILE``: files.
        runs: commands whose arguments are runs.
        settings: commands whose arguments are settings.
        words: commands whose first argument is one of a few words.
        groups: group -> names of its parts.
        keys: dotted keys of settings.
    """

    next: dict[str, list[str]]
    options: dict[str, list[str]]
    values: dict[tuple[str, str], list[str]]
    runs: list[str]
    settings: list[str]
    words: dict[str, list[str]]
    groups: dict[str, list[str]]
    keys: list[str]


_SETTINGS = ("key=value", "key=a,b,c", "STUDY|key=a,b", "DATA")
_RUNS = ("RUN", "RUN|STUDY", "STUDY")


def collect() -> Table:
    """Everything that can be typed, from the parsers and the registry."""
    from fedimb.cli.main import every_leaf

    found = Table({"": []}, {}, {}, [], [], {}, _groups(), _keys())
    for path, leaf in every_leaf():
        words = path.split()
        for at, word in enumerate(words):
            before = found.next.setdefault(" ".join(words[:at]), [])
            if word not in before:
                before.append(word)
        found.options[path] = []
        for action in leaf._actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            found.options[path] += [option for option in action.option_strings if option.startswith("--")]
            if action.option_strings and action.nargs != 0:
                named = list(action.choices or (["RUN"] if metavar in _RUNS else ["FILE"]))
                found.values.update({(path, option): list(map(str, named)) for option in action.option_strings})
            elif not action.option_strings and action.choices:
                found.words[path] = list(map(str, action.choices))
            elif not action.option_strings and metavar in _RUNS:
                found.runs.append(path)
            elif not action.option_strings and metavar in _SETTINGS:
                found.settings.append(path)
    from fedimb.cli.listing import PLURALS
    from fedimb.cli.new import KINDS as TEMPLATES

    found.words.update({"list": [*PLURALS, "combinations"], "new": list(TEMPLATES)})
    return found


def _groups() -> dict[str, list[str]]:
    """Names that ``group=`` takes: shipped and installed groups, and registered parts."""
    from fedimb import registry
    from fedimb.config.catalogue import Catalogue

    catalogue = Catalogue()
    groups = {group: catalogue.options(group) for group in catalogue.groups() if "/" not in group}
    return {
        group: sorted({*options, *registry.names(group)}) if group in registry.KINDS else options
        for group, options in groups.items()
    }


def _keys() -> list[str]:
    """Dotted keys of the configuration's own settings; those of parts differ with the part."""
    from fedimb.schema import RunConfig

    keys: list[str] = []
    for name, field in RunConfig.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None)
        keys += [f"{name}.{key}" for key in inner] if inner else [name]
    return keys


def _cases(table: dict[str, list[str]]) -> str:
    """Branches of a shell's ``case``, one per command."""
    return "\n".join(
        f"    {shlex.quote(path)}) echo {shlex.quote(' '.join(words))} ;;" for path, words in table.items()
    )


def _functions(table: Table) -> str:
    """Shell functions, for bash and zsh, that print the words of a command."""
    values = {f"{path} {option}": words for (path, option), words in table.values.items()}
    keys = [*(f"{group}=" for group in table.groups), *(f"{key}=" for key in table.keys if key not in table.groups)]
    both = dict.fromkeys([*table.runs, *table.settings])
    listed = {path: ["RUN"] * (path in table.runs) + keys * (path in table.settings) for path in both} | table.words
    parts = (("next", table.next), ("options", table.options), ("values", values), ("arguments", listed),
             ("parts", table.groups))  # fmt: skip
    return "\n".join(f"_fedimb_{name}() {{\n  case $1 in\n{_cases(words)}\n  esac\n}}" for name, words in parts)


_BASH = """\
# Completion of fedimb in bash, version 3 or later. Printed by: fedimb completion bash
@FUNCTIONS@
_fedimb_runs() {
  local file
  for file in runs/*/"$1"*/config.json; do
    [ -e "$file" ] && file=${file%/config.json} && echo "${file##*/}"
  done
}
_fedimb() {
  local line=${COMP_LINE:0:COMP_POINT} words command="" i found="" current last names prefix
  COMPREPLY=()
  read -r -a words <<< "$line"
  case $line in *[[:space:]]) words+=("") ;; esac
  current=${words[${#words[@]}-1]}
  last=${words[${#words[@]}-2]}
  for ((i = 1; i < ${#words[@]} - 1; i++)); do
    case " $(_fedimb_next "$command") " in
      *" ${words[i]} "*) command="${command:+$command }${words[i]}" ;;
      *) [ -n "$(_fedimb_next "$command")" ] && return; break ;;
    esac
  done
  names=$(_fedimb_values "$command $last")
  if [ "$names" = FILE ]; then
    return
  elif [ -n "$names" ]; then
    found=$names
  elif [ -n "$(_fedimb_next "$command")" ]; then
    found=$(_fedimb_next "$command")
  elif [ "${current#-}" != "$current" ]; then
    found=$(_fedimb_options "$command")
  elif [ "${current#*=}" != "$current" ]; then
    # readline replaces what follows the =, and several names are separated by commas
    names=$(_fedimb_parts "${current%%=*}")
    current=${current#*=}
    prefix=${current%"${current##*[,[]}"}
    COMPREPLY=($(compgen -P "$prefix" -W "$names" -- "${current##*[,[]}"))
    return
  else
    found=$(_fedimb_arguments "$command")
  fi
  case $found in RUN*) found="$(_fedimb_runs "$current") ${found#RUN}" ;; esac
  COMPREPLY=($(compgen -W "$found" -- "$current"))
  case ${COMPREPLY[0]} in *=) compopt -o nospace 2> /dev/null ;; esac
}
complete -o default -F _fedimb fedimb
"""


def bash(table: Table) -> str:
    """The script for bash."""
    return _BASH.replace("@FUNCTIONS@", _functions(table))


_ZSH = """\
#compdef fedimb
# Completion of fedimb in zsh. Printed by: fedimb completion zsh
@FUNCTIONS@
_fedimb() {
  emulate -L zsh
  local command="" found="" names key i current=$PREFIX last=${words[CURRENT-1]}
  for ((i = 2; i < CURRENT; i++)); do
    [[ -n $(_fedimb_next "$command") ]] || break
    [[ " $(_fedimb_next "$command") " == *" ${words[i]} "* ]] || return
    command="${command:+$command }${words[i]}"
  done
  names=$(_fedimb_values "$command $last")
  if [[ $names == FILE ]]; then
    _files
    return
  elif [[ -n $names ]]; then
    found=$names
  elif [[ -n $(_fedimb_next "$command") ]]; then
    found=$(_fedimb_next "$command")
  elif [[ $current == -* ]]; then
    found=$(_fedimb_options "$command")
  elif [[ $current == *=* ]]; then
    key=${current%%=*}
    compset -P '*[=,\\[]'
    compadd -- ${=$(_fedimb_parts "$key")} || _files
    return
  else
    found=$(_fedimb_arguments "$command")
  fi
  if [[ $found == RUN* ]]; then
    local -a runs=(runs/*/*/config.json(N:h:t)) more=(${=found#RUN})
    compadd -- $runs
    (( $#more )) && compadd -S '' -- $more
    _files
  elif [[ $found == *= ]]; then
    compadd -S '' -- ${=found}
    _files
  elif [[ -n $found ]]; then
    compadd -- ${=found}
  else
    _files
  fi
}
# found in $fpath, this file is itself the function that the first Tab calls
if [[ $funcstack[1] == _fedimb ]]; then _fedimb "$@"; else compdef _fedimb fedimb; fi
"""


def zsh(table: Table) -> str:
    """The script for zsh."""
    return _ZSH.replace("@FUNCTIONS@", _functions(table))


_FISH = """\
# Completion of fedimb in fish. Printed by: fedimb completion fish
function __fedimb_at
    set -l typed (commandline -opc)[2..]
    set -l wanted (string split " " -- $argv[1])
    test "$argv[1]" = ""; and set wanted
    test (count $typed) -ge (count $wanted); or return 1
    for i in (seq (count $wanted))
        test "$typed[$i]" = "$wanted[$i]"; or return 1
    end
end
function __fedimb_first
    __fedimb_at $argv[1]; or return 1
    set -l wanted (string split " " -- $argv[1])
    test "$argv[1]" = ""; and set wanted
    test (count (commandline -opc)) -eq (math 1 + (count $wanted))
end
function __fedimb_runs
    for file in runs/*/*/config.json
        basename (dirname $file)
    end
end
function __fedimb_settings
    set -l typed (commandline -ct)
    set -l lead (string match -r -- '^[^=]*=.*[,\\[]' "$typed")
    if test -z "$lead"
        printf '%s\n' $__fedimb_named $__fedimb_keys
    else
        # several names of one group, separated by commas
        set -l group (string replace -r -- '=.*' '' "$typed")
        printf '%s\n' $lead(string replace -f -- "$group=" '' $__fedimb_named)
    end
end
"""


def fish(table: Table) -> str:
    """The script for fish."""
    lines = []
    for path, words in table.next.items():
        lines.append(_fish_line("first", path, f"-f -a {_fish_text(' '.join(words))}"))
    for path, options in table.options.items():
        for option in options:
            taken = table.values.get((path, option))
            value = ""
            if taken is not None:
                value = " -r" if taken == ["FILE"] else f" -x -a {_fish_words(taken)}"
            lines.append(_fish_line("at", path, f"-l {option[2:]}{value}"))
    for path in table.runs:
        lines.append(_fish_line("at", path, "-a '(__fedimb_runs)'"))
    for path, words in table.words.items():
        lines.append(_fish_line("at", path, f"-f -a {_fish_text(' '.join(words))}"))
    named = [f"{group}={name}" for group, names in table.groups.items() for name in names]
    keys = [f"{key}=" for key in table.keys if key not in table.groups]
    lists = [f"set -g __fedimb_named {' '.join(named)}", f"set -g __fedimb_keys {' '.join(keys)}"]
    lines += [_fish_line("at", path, "-a '(__fedimb_settings)'") for path in table.settings]
    return _FISH + "\n".join([*lists, *lines]) + "\n"


def _fish_line(test: str, path: str, rest: str) -> str:
    condition = _fish_text(f"__fedimb_{test} {_fish_text(path)}")
    return f"complete -c fedimb -n {condition} {rest}"


def _fish_words(words: Iterable[str]) -> str:
    return "'(__fedimb_runs)'" if list(words) == ["RUN"] else _fish_text(" ".join(words))


def _fish_text(text: str) -> str:
    """A string in single quotes, as fish reads it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
