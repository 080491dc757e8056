"""A kernel as basic blocks, each translated to a pair of Python functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptx import arithmetic
from ptx.text import WIDTH, Entry, Instruction, Label, Operand

DTYPES: dict[str, Any] = {
    **{f"u{bits}": np.dtype(f"u{bits // 8}").type for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}").type for bits in (8, 16, 32, 64)},
    **{f"f{bits}": np.dtype(f"f{bits // 8}").type for bits in (16, 32, 64)},
    "pred": np.bool_,
}

WARP_OPERATIONS = ("shfl", "vote")
LEAVE = ("ret", "exit")
NO_RESULT = ("st", "bra", "ret", "exit", "trap", "membar", "fence", "bar", "barrier")


def canonical(type_: str) -> str:
    """The type that untyped bits are taken for."""
    return f"u{type_[1:]}" if type_[0] == "b" else type_


def storage(type_: str) -> str:
    """What a register of this type is kept as."""
    return type_ if type_ in ("pred", "f32", "f64") else f"u{8 * WIDTH[type_]}"


def synchronises_warp(op: list[str]) -> bool:
    """Whether the threads named by a mask must arrive together."""
    return (op[0] in WARP_OPERATIONS and "sync" in op) or (op[0] in ("bar", "barrier") and "warp" in op)


def is_barrier(op: list[str]) -> bool:
    """Whether it is a barrier of the whole block."""
    return op[0] in ("bar", "barrier") and "warp" not in op


def registers_in(operand: Operand) -> list[str]:
    """Registers that an operand names."""
    if operand[0] == "r":
        return [operand[1]]
    parts = operand[1] if operand[0] == "vec" else operand[1:]
    return [r for part in parts if isinstance(part, tuple) for r in registers_in(part)]


def uses_and_results(instruction: Instruction) -> tuple[list[str], list[str]]:
    """Registers read and written."""
    used, written = [], []
    for number, operand in enumerate(instruction.operands):
        is_result = number == 0 and instruction.op[0] not in NO_RESULT and operand[0] != "mem"
        (written if is_result else used).extend(registers_in(operand))
    if instruction.guard:
        used.append(instruction.guard[1])
    return used, written


@dataclass(eq=False)
class Block:
    """Instructions that run one after another.

    `end`: the branch, exit or barrier that ends it; `meeting`: the warp operation that begins it;
    `full` and `part` do its work for all threads, or for those of a list.
    """

    number: int
    instructions: list[Instruction] = field(default_factory=list)
    end: Instruction | None = None
    meeting: Instruction | None = None
    successors: list[int] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    live_in: set[str] = field(default_factory=set)
    live_out: set[str] = field(default_factory=set)
    full: Callable[..., Any] | None = None
    part: Callable[..., Any] | None = None
    n_instructions: int = 0


class Program:
    """Control flow, liveness and generated code of one kernel.

    `symbols`: offsets of shared and local variables. `sites`: all instructions by number; `slot`: place
    of a register among a batch's registers, whose first values are `defaults`.
    """

    def __init__(self, entry: Entry, symbols: Mapping[str, int]) -> None:
        from ptx.instructions import InstructionCode

        self.name, self.symbols = entry.name, symbols
        self.registers = {name: kind for name, kind in entry.registers.items() if not name.endswith("<")}
        self.parameters = {p.name: p for p in entry.parameters}
        self.sites: list[Instruction] = []
        self.blocks: list[Block] = [Block(0)]
        self.labels: dict[str, int] = {}
        self._split(entry)
        self.exit = len(self.blocks)
        self._connect()
        self._find_live()
        names = sorted(self.registers)
        self.slot = {name: number for number, name in enumerate(names)}
        self.defaults = [DTYPES[storage(self.registers[name])](0) for name in names]
        self.constants: dict[tuple[str, bytes], str] = {}
        self.scope: dict[str, Any] = {k: v for k, v in vars(arithmetic).items() if not k.startswith("__")}
        for block in self.blocks:
            InstructionCode(self, block).build()

    def _split(self, entry: Entry) -> None:
        """Cut the body at labels, branches, barriers and warp operations."""
        for item in _with_branches(entry.body):
            block = self.blocks[-1]
            if isinstance(item, Label):
                if block.instructions:
                    self.blocks.append(Block(len(self.blocks)))
                self.labels[item.name] = len(self.blocks) - 1
                continue
            if block.end or (synchronises_warp(item.op) and block.instructions):
                block = Block(len(self.blocks))
                self.blocks.append(block)
            if synchronises_warp(item.op):
                block.meeting = item
            self._append(block, item)
            if item.op[0] in ("bra", "trap", *LEAVE) or is_barrier(item.op):
                block.end = item
        last = self.blocks[-1]
        if last.end is None or last.end.guard:
            if last.end:
                last = Block(len(self.blocks))
                self.blocks.append(last)
            last.end = Instruction(["ret"], None, [], "ret", None)
            self._append(last, last.end)

    def _append(self, block: Block, instruction: Instruction) -> None:
        instruction.site = len(self.sites)
        self.sites.append(instruction)
        block.instructions.append(instruction)

    def _connect(self) -> None:
        for block in self.blocks:
            end, after = block.end, block.number + 1
            if end is None or is_barrier(end.op):
                block.successors = [after]
                continue
            target = self.labels[end.operands[0][1]] if end.op[0] == "bra" else self.exit
            block.successors = [target, after] if end.guard else [target]

    def _find_live(self) -> None:
        for block in self.blocks:
            for instruction in block.instructions:
                used, written = uses_and_results(instruction)
                block.used.update(r for r in used if r not in block.written)
                block.written.update(written)
        changed = True
        while changed:
            changed = False
            for block in reversed(self.blocks):
                out: set[str] = set()
                for successor in block.successors:
                    if successor < self.exit:
                        out |= self.blocks[successor].live_in
                into = block.used | (out - block.written)
                if out != block.live_out or into != block.live_in:
                    block.live_out, block.live_in, changed = out, into, True


def _with_branches(body: list[Instruction | Label]) -> list[Instruction | Label]:
    """Guarded instructions as a branch around them."""
    found: list[Instruction | Label] = []
    for item in body:
        if isinstance(item, Label) or not item.guard or item.op[0] in ("bra", *LEAVE):
            found.append(item)
            continue
        label = f"$skip{len(found)}"
        around = (not item.guard[0], item.guard[1])
        branch = Instruction(
            ["bra", "$guard"], around, [("v", label, 0)], f"(guard of) {item.text}", item.line
        )
        alone = Instruction(item.op, None, item.operands, item.text, item.line, item.problem)
        found += [branch, alone, Label(label)]
    return found
