"""PTX text to lists of instructions.

Operands are tuples: ``('r', name)`` a register, ``('i', value)`` an integer, ``('f', width, bits)`` a
floating-point number, ``('s', name)`` a special register, ``('v', symbol, offset)`` a variable,
``('mem', base, offset)`` an address, ``('vec', [operands])``, ``('not', operand)``, ``('pair', a, b)``
and ``('sink',)``.

Only what NVRTC makes of kernels without calls is understood: one flat list of registers, parameters,
shared and local variables. What is not is refused by name when it would be executed.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any

WIDTH = {f"{letter}{bits}": bits // 8 for letter in "bus" for bits in (8, 16, 32, 64)}
WIDTH |= {"pred": 1, "f16": 2, "f32": 4, "f64": 8}
"""Bytes of each type."""

Operand = tuple[Any, ...]


@dataclass(eq=False)
class Instruction:
    """One instruction: its opcode split at the dots, the guard (is negated, predicate) and operands.

    `line` is the source line it comes from; `problem` says why its operands were not understood; `site`
    is its number in the kernel.
    """

    op: list[str]
    guard: tuple[bool, str] | None
    operands: list[Operand]
    text: str
    line: int | None
    problem: str | None = None
    site: int = -1


@dataclass(frozen=True)
class Label:
    """A place to branch to."""

    name: str


@dataclass
class Variable:
    """A parameter, or a variable in shared or local memory. `is_extern`: its size comes with the launch."""

    name: str
    space: str
    type: str
    alignment: int
    size: int
    is_extern: bool = False
    offset: int = 0


@dataclass
class Entry:
    """One kernel: parameters, registers by name, variables, and its body."""

    name: str
    parameters: list[Variable]
    registers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    body: list[Instruction | Label] = field(default_factory=list)
    most_threads: list[int] | None = None  # .maxntid
    required_threads: list[int] | None = None  # .reqntid


_VARIABLE = re.compile(
    r"^(?P<linkage>\.(?:extern|visible|weak|common)\s+)?\.(?P<space>global|const|shared|local|param)\s*"
    r"(?P<before>(?:\.align\s+\d+\s*|\.v[24]\s*|\.ptr\s*|\.(?:global|shared|const|local)\s+)*)"
    r"\.(?P<type>\w+)\s+(?:(?:\.ptr\s*|\.(?:global|shared|const|local)\s+|\.align\s+\d+\s*)*)"
    r"(?P<name>[\w$%.]+)\s*(?P<sizes>(?:\[[^\]]*\]\s*)*)(?:=.*)?$",
    re.DOTALL,
)
_INTEGER = re.compile(r"^-?(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)U?$")
_LOCATION = re.compile(r"\.(?:loc|file)\s")
_LABEL = re.compile(r"([$\w%.]+)\s*:(?!:)")
_ENTRY = re.compile(r"(?:\.(?:visible|weak|extern)\s+)?\.(entry|func)\b")


def parse_variable(text: str) -> Variable:
    """A declaration of a parameter or variable."""
    match = _VARIABLE.match(text.strip())
    if match is None or match["type"] not in WIDTH:
        raise NotImplementedError(f"PTX declaration: {text[:120]}")
    width = WIDTH[match["type"]]
    aligned = re.search(r"\.align\s+(\d+)", match["before"])
    vector = re.search(r"\.v([24])", match["before"])
    count = int(vector[1]) if vector else 1
    sizes = re.findall(r"\[([^\]]*)\]", match["sizes"])
    for size in sizes:
        count *= int(size, 0) if size.strip() else 0
    return Variable(
        match["name"],
        match["space"],
        match["type"],
        int(aligned[1]) if aligned else width,
        count * width,
        (match["linkage"] or "").strip() == ".extern" or (bool(sizes) and count == 0),
    )


def split_top(text: str) -> list[str]:
    """Split at commas that no bracket encloses."""
    found, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "{[(") - (letter in "}])")
        if letter == "," and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += letter
    return [*found, current.strip()] if current.strip() else found


def parse_operand(text: str, registers: dict[str, str]) -> Operand:
    """One operand; see the module's docstring."""
    text = text.strip()
    if text == "_":
        return ("sink",)
    if text[0] in "{(":
        return ("vec", [parse_operand(part, registers) for part in split_top(text[1:-1])])
    if text[0] == "[":
        return _parse_address(text[1 : text.rindex("]")], registers)
    if text[0] == "!":
        return ("not", parse_operand(text[1:], registers))
    if "|" in text:
        first, second = text.split("|")
        return ("pair", parse_operand(first, registers), parse_operand(second, registers))
    if re.match(r"^0[fF][0-9a-fA-F]{8}$", text):
        return ("f", 32, int(text[2:], 16))
    if re.match(r"^0[dD][0-9a-fA-F]{16}$", text):
        return ("f", 64, int(text[2:], 16))
    if _INTEGER.match(text):
        return ("i", int(text.rstrip("U"), 0))
    if re.match(r"^-?\d+\.\d*([eE][-+]?\d+)?$", text):
        return ("f", 64, struct.unpack("<Q", struct.pack("<d", float(text)))[0])
    if _is_register(text, registers):
        return ("r", text)
    if text.startswith("%"):
        return ("s", text)
    if match := re.match(r"^([\w$.]+)\s*(?:\+\s*(-?\d+))?$", text):
        return ("v", match[1], int(match[2] or 0))
    raise NotImplementedError(f"PTX operand {text}")


def _is_register(name: str, registers: dict[str, str]) -> bool:
    """Whether it is declared; a register of a range `%r<9>` is entered when it is met."""
    if name in registers:
        return True
    match = re.match(r"^(.*?)(\d+)$", name)
    family = f"{match[1]}<" if match else ""
    if match is None or family not in registers:
        return False
    registers[name] = registers[family]
    return True


def _parse_address(text: str, registers: dict[str, str]) -> Operand:
    match = re.match(r"^\s*([^\s+,]+)\s*(?:\+\s*(-?(?:0[xX])?[0-9a-fA-F]+))?\s*$", text)
    if match is None:
        raise NotImplementedError(f"PTX address [{text}]")
    return ("mem", parse_operand(match[1], registers), int(match[2], 0) if match[2] else 0)


def parse_module(text: str) -> tuple[dict[str, Entry], dict[str, Variable]]:
    """All kernels and the module's variables."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = "\n".join(line if '"' in line else line.split("//")[0] for line in text.split("\n"))
    entries: dict[str, Entry] = {}
    variables: dict[str, Variable] = {}
    at = 0
    while (at := _skip(text, at, " \t\r\n")) < len(text):
        if text.startswith((".version", ".target", ".address_size"), at) or _LOCATION.match(text, at):
            at = _line_end(text, at)
        elif text.startswith(".section", at):
            at = _closing_brace(text, text.index("{", at)) + 1
        elif text.startswith(".pragma", at):
            at = text.index(";", at) + 1
        elif match := _ENTRY.match(text, at):
            brace = text.index("{", at)
            if match[1] == "func":
                raise NotImplementedError(f"PTX function: {text[at:brace].strip()[:120]}")
            end = _closing_brace(text, brace)
            entry = _parse_entry(text[match.end() : brace], text[brace + 1 : end])
            entries[entry.name] = entry
            at = end + 1
        else:
            end = text.index(";", at)
            variable = parse_variable(text[at:end])
            variables[variable.name] = variable
            at = end + 1
    return entries, variables


def _skip(text: str, at: int, letters: str) -> int:
    while at < len(text) and text[at] in letters:
        at += 1
    return at


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def _closing_brace(text: str, at: int) -> int:
    depth = 0
    while True:
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return at
        at += 1


def _parse_entry(head: str, body: str) -> Entry:
    match = re.match(r"^\s*([\w$.]+)\s*(\((?:[^()]|\([^)]*\))*\))?(.*)$", head, re.DOTALL)
    assert match is not None, head
    inside = match[2].strip()[1:-1] if match[2] else ""
    entry = Entry(match[1], [parse_variable(" ".join(p.split())) for p in split_top(inside)])
    for name, attribute in (("maxntid", "most_threads"), ("reqntid", "required_threads")):
        if found := re.search(rf"\.{name}\s+([\d,\s]+)", match[3]):
            setattr(entry, attribute, [int(v) for v in found[1].split(",") if v.strip()])
    _parse_body(entry, body)
    return entry


def _parse_body(entry: Entry, text: str) -> None:
    at, line = 0, None
    while (at := _skip(text, at, " \t\r\n;")) < len(text):
        if text[at] in "{}":
            raise NotImplementedError(f"kernel {entry.name}: nested scopes in PTX")
        if _LOCATION.match(text, at):
            end = _line_end(text, at)
            if (match := re.match(r"\.loc\s+\d+\s+(\d+)", text[at:end])) and match[1] != "0":
                line = int(match[1])
            at = end
        elif match := _LABEL.match(text, at):
            entry.body.append(Label(match[1]))
            at = match.end()
        else:
            end = text.index(";", at)
            _parse_statement(entry, " ".join(text[at:end].split()), line)
            at = end + 1


def _parse_statement(entry: Entry, text: str, line: int | None) -> None:
    if match := re.match(r"^\.reg\s+\.(\w+)\s+(.*)$", text):
        for name in (part.strip() for part in match[2].split(",")):
            entry.registers[re.sub(r"<\d+>$", "<", name)] = match[1]
        return
    if text.startswith(".pragma"):
        return
    if text.startswith("."):
        variable = parse_variable(text)
        entry.variables[variable.name] = variable
        return
    guard, statement = None, text
    if match := re.match(r"^@(!?)([%\w$]+)\s+(.*)$", text):
        _is_register(match[2], entry.registers)
        guard, statement = (match[1] == "!", match[2]), match[3]
    match = re.match(r"^([\w.:]+)\s*(.*)$", statement)
    assert match is not None, text
    operands: list[Operand] = []
    problem = None
    try:
        operands = [parse_operand(part, entry.registers) for part in split_top(match[2])]
    except NotImplementedError as error:
        problem = str(error)
    entry.body.append(Instruction(match[1].split("."), guard, operands, text, line, problem))
