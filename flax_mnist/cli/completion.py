"""`flax-mnist completion`: a script by which a shell completes commands, flags, choices, files."""

import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import tyro

from flax_mnist.cli.fields import Field, all_fields_of
from flax_mnist.show import terminal

Commands = Mapping[str, type]  #: The dataclass of each subcommand.


@dataclasses.dataclass(frozen=True)
class Completion:
    """Print a script by which a shell completes commands, flags, choices and files.

    Examples::

        source <(flax-mnist completion bash)
        flax-mnist completion zsh > ~/.zfunc/_flax-mnist
        flax-mnist completion fish > ~/.config/fish/completions/flax-mnist.fish
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Shell that reads it."""

    def run(self, commands: Commands) -> None:
        terminal.say({"bash": bash, "zsh": zsh, "fish": fish}[self.shell](commands))


BASH = """\
# Of what may follow a command, one of its flags, several words behind one, and no flag.
declare -gA _flax_mnist_words=(
    TABLE
)
_flax_mnist() {
    local command=${COMP_WORDS[1]} word=${COMP_WORDS[COMP_CWORD]} i=$((COMP_CWORD - 1))
    # --flag=value is three words here.
    if [[ $word == = ]]; then word=; elif [[ ${COMP_WORDS[i]} == = ]]; then ((i--)); fi
    local key=${COMP_WORDS[i]}
    while ((i > 1)) && [[ ${COMP_WORDS[i]} != -* ]]; do key="${COMP_WORDS[--i]} ..."; done
    key="$command $key"
    if ((COMP_CWORD == 1)); then key=flax-mnist
    elif [[ $word == -* ]]; then key=$command
    elif [[ ! ${_flax_mnist_words[$key]+there} ]]; then
        key="$command FILE"
        [[ ${_flax_mnist_words[$key]+there} ]] || key=$command
    fi
    COMPREPLY=()
    [[ ${_flax_mnist_words[$key]} == FILE ]] && return  # readline knows best
    compopt +o bashdefault +o default
    COMPREPLY=($(compgen -W "${_flax_mnist_words[$key]}" -- "$word"))
}
complete -o bashdefault -o default -F _flax_mnist flax-mnist"""

ZSH = """\
#compdef flax-mnist
_flax_mnist() {
    local -a commands=(
        COMMANDS
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
        CASES
    esac
}
# Called where zsh has found it by itself, registered where it is sourced.
if [[ $funcstack[1] == _flax-mnist ]]; then
    _flax_mnist "$@"
else
    compdef _flax_mnist flax-mnist
fi"""

FISH = """\
function __flax_mnist_is
    set -l words (commandline -opc)
    test "$words[2]" = "$argv[1]"
end
complete -c flax-mnist -f
complete -c flax-mnist -n '__flax_mnist_is ""' -l help -l version"""


def bash(commands: Commands) -> str:
    """The script for bash, from version 4.2 on."""
    table = {"flax-mnist": " ".join([*commands, "--help", "--version"])}
    for name, cls in commands.items():
        table[name] = "--help"
        for field in all_fields_of(cls):
            words = " ".join(field.choices) or ("FILE" if field.is_path else "")
            if field.is_positional:
                table[f"{name} FILE"] = words
                continue
            table[name] += " " + " ".join(field.flags)
            if field.kind is not bool:
                table |= {f"{name} {flag}": words for flag in field.flags}
            if field.is_many:
                table |= {f"{name} {flag} ...": words for flag in field.flags}
    return BASH.replace(
        "TABLE", "\n    ".join(f"[{key}]={shlex.quote(words)}" for key, words in table.items())
    )


def zsh(commands: Commands) -> str:
    """The script for zsh, to be sourced, or to be `_flax-mnist` in a folder of `fpath`."""
    described = [shlex.quote(f"{name}:{_brief(cls.__doc__)}") for name, cls in commands.items()]
    cases = []
    for name, cls in commands.items():
        fields = list(all_fields_of(cls))
        arguments = ["--help[Show all this]", *(word for f in fields for word in _in_zsh(f))]
        if not any(field.is_positional for field in fields):
            # Of several words behind a flag these are all but the first.
            arguments.append(f"*: :({' '.join(c for f in fields if f.is_many for c in f.choices)})")
        lines = " \\\n            ".join(map(shlex.quote, arguments))
        cases.append(f"{name}) _arguments {lines} ;;")
    script = ZSH.replace("COMMANDS", "\n        ".join(described))
    return script.replace("CASES", "\n        ".join(cases))


def _in_zsh(field: Field) -> Iterator[str]:
    """What `_arguments` is to know of a field."""
    said = "".join(f"\\{c}" if c in "[]:" else c for c in _brief(field.help))
    words = f"({' '.join(field.choices)})" if field.choices else "_files" if field.is_path else " "
    value = f":{field.name}:{words}"
    if field.is_positional:
        yield f"*{value}" if field.is_many else value
        return
    for flag in field.flags:
        equals = "=" if flag.startswith("--") and not field.is_many else ""
        yield f"{flag}[{said}]" if field.kind is bool else f"{flag}{equals}[{said}]{value}"


def fish(commands: Commands) -> str:
    """The script for fish."""
    lines = [FISH]
    for name, cls in commands.items():
        said = shlex.quote(_brief(cls.__doc__))
        lines.append(f"complete -c flax-mnist -n '__flax_mnist_is \"\"' -a {name} -d {said}")
        for field in all_fields_of(cls):
            here = f"complete -c flax-mnist -n '__flax_mnist_is {name}'"
            lines += [f"{here} {word}" for word in _in_fish(field)]
    return "\n".join(lines)


def _in_fish(field: Field) -> Iterator[str]:
    """What `complete` is to know of a field."""
    words = f"-a {shlex.quote(' '.join(field.choices))}" if field.choices else ""
    if field.is_positional:
        yield words or "-F"
        return
    value = "" if field.kind is bool else "-r -F" if field.is_path else f"-x {words}"
    for flag in field.flags:
        option = f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        yield f"{option} {value} -d {shlex.quote(_brief(field.help))}"


def _brief(said: str | None) -> str:
    """The first sentence."""
    return (said or "").partition("\n")[0].partition(". ")[0].removesuffix(".")
