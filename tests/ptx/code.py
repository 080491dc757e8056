"""Python code for one basic block: values, registers, and the functions they end in.

The code works on arrays over threads, or on scalars where all threads agree. Of each block there are two
functions: `full` for all threads of a batch, `part` for a list `idx` of them. `S` is the launch, `R`
its registers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ptx.program import DTYPES, Block, canonical, storage, uses_and_results
from ptx.text import WIDTH, Instruction, Operand

if TYPE_CHECKING:
    from ptx.program import Program

NUMPY = {
    **{f"u{8 * w}": f"u{w}" for w in (1, 2, 4, 8)},
    **{f"s{8 * w}": f"i{w}" for w in (1, 2, 4, 8)},
    **{f"f{8 * w}": f"f{w}" for w in (2, 4, 8)},
}
_VARIABLE = re.compile(r"\bv\d+\b")


class BlockCode:
    """Writes and compiles the functions of one block."""

    def __init__(self, program: Program, block: Block) -> None:
        self.program, self.block = program, block
        self.lines: list[str] = []
        self.current: dict[str, str] = {}  # register: variable that holds it
        self.reads: list[tuple[str, str]] = []
        self.derived: dict[tuple[str, object], str] = {}
        self.aliases: set[str] = set()  # variables that may share memory with a register
        self.n_variables = 0
        self.result = "None"

    def build(self) -> None:
        """Compile `full` and `part` of the block."""
        block, program = self.block, self.program
        for instruction in block.instructions:
            mark = len(self.lines)
            try:
                if instruction.problem:
                    raise NotImplementedError(instruction.problem)
                self.translate(instruction)
            except (
                NotImplementedError,
                KeyError,
                ValueError,
                IndexError,
                TypeError,
                AttributeError,
            ) as error:
                del self.lines[mark:]
                what = f'kernel {program.name}: PTX instruction not supported: "{instruction.text}" ({error})'
                self.lines.append(f"raise NotImplementedError({what!r})")
                for register in uses_and_results(instruction)[1]:  # code behind still needs a definition
                    self.current[register] = self.assign("None")
        self._compile()

    def translate(self, instruction: Instruction) -> None:
        """Write the lines of one instruction."""
        raise NotImplementedError(instruction.text)

    def _compile(self) -> None:
        block, program = self.block, self.program
        outputs, seen = [], set()
        for register in sorted(block.live_out & block.written):
            variable = self.current[register]
            outputs.append((program.slot[register], variable, variable in self.aliases or variable in seen))
            seen.add(variable)
        body = self._freeing(seen | set(_VARIABLE.findall(self.result)))
        text = []
        for part in (False, True):
            text.append(f"def b{block.number}_{int(part)}(S, R, idx, n):")
            for variable, register in self.reads:
                text.append(f"  {variable} = R[{program.slot[register]}]")
                if part:
                    text.append(f"  if {variable}.ndim: {variable} = {variable}[idx]")
            text += [f"  {line}" for line in body]
            for slot, variable, shared in outputs:
                if part:
                    text.append(f"  S.scatter({slot}, {variable}, idx, n)")
                elif shared:
                    text.append(f"  R[{slot}] = {variable}.copy() if {variable}.ndim else {variable}")
                else:
                    text.append(f"  R[{slot}] = {variable}")
            text.append(f"  return {self.result}")
        exec(compile("\n".join(text), f"<{program.name} block {block.number}>", "exec"), program.scope)
        block.full, block.part = (program.scope[f"b{block.number}_{part}"] for part in (0, 1))
        block.n_instructions = sum(i.op[-1] != "$guard" for i in block.instructions)

    def _freeing(self, keep: set[str]) -> list[str]:
        """The lines, with temporaries deleted after their last use: arrays over threads are large."""
        last = {v: k for k, line in enumerate(self.lines) for v in _VARIABLE.findall(line)}
        done: dict[int, list[str]] = {}
        for variable, k in last.items():
            if variable not in keep:
                done.setdefault(k, []).append(variable)
        body = []
        for k, line in enumerate(self.lines):
            body.append(line)
            if k in done and not line.startswith("raise") and len(self.lines) > 6:
                body.append(f"del {', '.join(done[k])}")
        return body

    # ------------------------------------------------------------------ values

    def assign(self, expression: str) -> str:
        self.n_variables += 1
        self.lines.append(f"v{self.n_variables} = {expression}")
        return f"v{self.n_variables}"

    def constant(self, value: float, type_: str) -> str:
        """Name of a constant of this type."""
        dtype = DTYPES[type_]
        if type_ == "pred" or type_[0] == "f":
            made = dtype(value)
        else:
            width = WIDTH[type_]
            made = np.array(int(value) & ((1 << 8 * width) - 1), dtype=f"u{width}").view(dtype)[()]
        return self._named(type_, made)

    def _named(self, type_: str, value: np.generic) -> str:
        constants = self.program.constants
        key = (type_, value.tobytes())
        if key not in constants:
            constants[key] = f"c{len(constants)}"
            self.program.scope[constants[key]] = value
        return constants[key]

    def _float_constant(self, width: int, bits: int, type_: str) -> str:
        if type_[0] != "f":
            return self.constant(bits, type_)
        value = np.uint32(bits).view(np.float32) if width == 32 else np.uint64(bits).view(np.float64)
        return self._named(type_, value if type_ == f"f{width}" else DTYPES[type_](value))

    def _register(self, name: str) -> str:
        if name not in self.current:
            self.n_variables += 1
            variable = f"v{self.n_variables}"
            self.current[name] = variable
            self.reads.append((variable, name))
            self.aliases.add(variable)
        return self.current[name]

    def derive(self, variable: str, expression: str, key: object) -> str:
        if (variable, key) not in self.derived:
            made = self.assign(expression)
            self.derived[variable, key] = made
            self.aliases.add(made)
        return self.derived[variable, key]

    def get(self, operand: Operand, type_: str) -> str:
        """Expression for an operand read as this type."""
        type_ = canonical(type_)
        kind = operand[0]
        if kind == "i":
            return self.constant(operand[1], type_)
        if kind == "f":
            return self._float_constant(operand[1], operand[2], type_)
        if kind == "not":
            return f"(~{self.get(operand[1], 'pred')})"
        if kind == "v":
            return self.constant(self.symbol(operand[1]) + operand[2], type_)
        if kind == "s":
            value = self.derive("", f"S.special({operand[1][1:]!r}, idx)", operand[1])
            return self._as_type(value, "u32", type_)
        if kind != "r":
            raise NotImplementedError(f"operand {operand!r}")
        return self._as_type(self._register(operand[1]), storage(self.program.registers[operand[1]]), type_)

    def _as_type(self, variable: str, held: str, type_: str) -> str:
        if held == type_:
            return variable
        if "pred" in (held, type_):
            raise NotImplementedError("a predicate as a value")
        have, want = WIDTH[held], WIDTH[type_]
        if have == want:
            return self.derive(variable, f"{variable}.view({NUMPY[type_]})", type_)
        if held[0] == "f":
            variable = self.derive(variable, f"{variable}.view(u{have})", f"u{8 * have}")
        bits = self.derive(variable, f"{variable}.astype(u{want})", ("bits", want))
        return bits if type_[0] == "u" else self.derive(bits, f"{bits}.view({NUMPY[type_]})", type_)

    def symbol(self, name: str) -> int:
        if name in self.program.parameters:
            return self.program.parameters[name].offset
        if name not in self.program.symbols:
            raise NotImplementedError(f"symbol {name}")
        return self.program.symbols[name]

    def put(self, operand: Operand, expression: str, type_: str, alias: bool = False) -> None:
        """Assign an expression of this type to a destination."""
        if operand[0] == "sink":
            self.assign(expression)
            return
        if operand[0] != "r":
            raise NotImplementedError(f"destination {operand!r}")
        type_ = canonical(type_)
        held = storage(self.program.registers[operand[1]])
        if held != type_:
            if "pred" in (held, type_):
                raise NotImplementedError("a predicate as a value")
            have, want = WIDTH[type_], WIDTH[held]
            if have == want:
                value = self.assign(expression)
                expression = f"{value}.view({NUMPY[held]})"
                if alias:
                    self.aliases.add(value)
            elif type_[0] == "f":
                raise NotImplementedError("a float in a register of another width")
            else:
                letter = "i" if type_[0] == "s" and want > have else "u"
                expression = f"({expression}).astype({letter}{want})"
                expression += f".view(u{want})" if letter == "i" else ""
                alias = False
        made = self.assign(expression)
        if alias:
            self.aliases.add(made)
        self.current[operand[1]] = made
