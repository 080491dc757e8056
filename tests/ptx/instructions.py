"""What each PTX instruction is in Python."""

from __future__ import annotations

from typing import Any

from ptx.code import NUMPY, BlockCode
from ptx.program import LEAVE, canonical, is_barrier, storage
from ptx.text import WIDTH, Instruction, Operand

COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
COMPARISONS |= {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}  # unsigned
UNORDERED = {"ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}  # true also for a NaN: the opposite, negated
JOINS = {"and": "&", "or": "|", "xor": "^"}
ROUNDINGS = ("rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi")


class InstructionCode(BlockCode):
    """Translates instructions; those that are not here are refused by name when they are executed."""

    def translate(self, instruction: Instruction) -> None:
        if instruction is self.block.end:
            self._end(instruction)
            return
        name = instruction.op[0]
        work: Any = getattr(self, f"_do_{name}", None)
        if work is not None:
            work(instruction, instruction.op, instruction.operands)
        elif name in ("and", "or", "xor", "not"):
            self._logic(instruction.op, instruction.operands)
        elif name not in ("membar", "fence"):
            raise NotImplementedError(name)

    def _end(self, instruction: Instruction) -> None:
        op = instruction.op
        if op[0] == "bra" or op[0] in LEAVE:
            if instruction.guard:
                predicate = self.get(("r", instruction.guard[1]), "pred")
                self.result = f"(~{predicate})" if instruction.guard[0] else predicate
        elif op[0] == "trap":
            self.lines.append(f"S.trap({instruction.site}, idx)")
        elif is_barrier(op):
            if "sync" not in op or len(instruction.operands) > 1:
                raise NotImplementedError("only barriers of the whole block")
            number = instruction.operands[0] if instruction.operands else ("i", 0)
            self.result = self.get(number, "u32")

    def _type(self, op: list[str]) -> str:
        return next(part for part in reversed(op) if part in WIDTH)

    def _rounding(self, op: list[str]) -> str | None:
        return next((part for part in op[1:] if part in ROUNDINGS), None)

    def _plain_float(self, op: list[str]) -> None:
        """Refuse what is not IEEE arithmetic rounded to nearest."""
        if self._rounding(op) not in (None, "rn") or "ftz" in op or "sat" in op or "approx" in op:
            raise NotImplementedError("only rounding to nearest, denormals kept")

    def _do_mov(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = self._type(op)
        target, source = operands
        if target[0] == "vec" or source[0] == "vec":
            self._move_parts(target, source, WIDTH[type_])
            return
        if type_ != "pred" and target[0] == "r":
            held = storage(self.program.registers[target[1]])
            type_ = held if WIDTH[held] == WIDTH[type_] else type_
        self.put(target, self.get(source, type_), type_, alias=True)

    def _move_parts(self, target: Operand, source: Operand, width: int) -> None:
        """Split a value into parts, the lowest first, or join them."""
        if target[0] == "vec":
            part = width // len(target[1])
            value = self.get(source, f"u{8 * width}")
            for k, operand in enumerate(target[1]):
                shifted = f"({value} >> u{width}({8 * part * k}))" if k else value
                self.put(operand, f"{shifted}.astype(u{part})", f"u{8 * part}")
            return
        part = width // len(source[1])
        joined = []
        for k, operand in enumerate(source[1]):
            value = f"{self.get(operand, f'u{8 * part}')}.astype(u{width})"
            joined.append(f"({value} << u{width}({8 * part * k}))" if k else value)
        self.put(target, " | ".join(joined), f"u{8 * width}")

    def _do_cvta(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        if "global" not in op:
            raise NotImplementedError("generic addresses of other than global memory")
        self.put(operands[0], self.get(operands[1], "u64"), "u64", alias=True)

    def _float_arithmetic(self, op: list[str], operands: list[Operand], kind: str) -> None:
        type_ = self._type(op)
        if type_ not in ("f32", "f64"):
            raise NotImplementedError(type_)
        self._plain_float(op)
        values = [self.get(operand, type_) for operand in operands[1:]]
        expression = f"fma{type_[1:]}({', '.join(values)})" if kind == "fma" else f" {kind} ".join(values)
        self.put(operands[0], expression, type_)

    def _add(self, op: list[str], operands: list[Operand], sign: str) -> None:
        type_ = self._type(op)
        if type_[0] == "f":
            self._float_arithmetic(op, operands, sign)
            return
        if "cc" in op or "sat" in op:
            raise NotImplementedError("carry or saturation")
        unsigned = f"u{8 * WIDTH[type_]}"
        a, b = (self.get(operand, unsigned) for operand in operands[1:])
        self.put(operands[0], f"{a} {sign} {b}", unsigned)

    def _do_add(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._add(op, operands, "+")

    def _do_sub(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._add(op, operands, "-")

    def _product(self, op: list[str], a: Operand, b: Operand, type_: str) -> tuple[str, str]:
        """Expression and type of an integer product."""
        width = 8 * WIDTH[type_]
        if "wide" in op:
            wide = f"{type_[0]}{2 * width}"
            factors = []
            for operand in (a, b):
                if operand[0] == "i":
                    value = operand[1] & ((1 << width) - 1)
                    value -= (value >> (width - 1)) << width if type_[0] == "s" else 0
                    factors.append(self.constant(value, wide))
                else:
                    narrow = self.get(operand, type_)
                    expression = f"{narrow}.astype({NUMPY[wide]})"
                    factors.append(
                        self.derive(narrow, expression, ("wide", wide)) if narrow[0] == "v" else expression
                    )
            return " * ".join(factors), wide
        if "hi" in op:
            name = {"u32": "mulhi32", "s32": "mulhis32", "u64": "mulhi64"}[type_]
            return f"{name}({self.get(a, type_)}, {self.get(b, type_)})", type_
        unsigned = f"u{width}"
        return f"{self.get(a, unsigned)} * {self.get(b, unsigned)}", unsigned

    def _do_mul(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = self._type(op)
        if type_[0] == "f":
            self._float_arithmetic(op, operands, "*")
        else:
            self.put(operands[0], *self._product(op, operands[1], operands[2], canonical(type_)))

    def _do_mad(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        if "cc" in op or "sat" in op:
            raise NotImplementedError("carry or saturation")
        product, type_ = self._product(op, operands[1], operands[2], canonical(self._type(op)))
        self.put(operands[0], f"({product}) + {self.get(operands[3], type_)}", type_)

    def _do_fma(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._float_arithmetic(op, operands, "fma")

    def _do_div(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        a, b = (self.get(operand, type_) for operand in operands[1:])
        if type_[0] == "f":
            self._plain_float(op)
        self.put(operands[0], f"{a} / {b}" if type_[0] == "f" else f"divide({a}, {b})", type_)

    def _do_rem(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        a, b = (self.get(operand, type_) for operand in operands[1:])
        self.put(operands[0], f"remainder({a}, {b})", type_)

    def _function(self, op: list[str], operands: list[Operand], form: str) -> None:
        """A floating-point function of one argument."""
        type_ = self._type(op)
        if type_ not in ("f32", "f64") or "ftz" in op:
            raise NotImplementedError(".".join(op))
        one = self.constant(1.0, type_)
        self.put(operands[0], form.format(x=self.get(operands[1], type_), one=one), type_)

    def _do_rcp(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._plain_float(op)
        self._function(op, operands, "{one} / {x}")

    def _do_sqrt(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._plain_float(op)
        self._function(op, operands, "np.sqrt({x})")

    def _do_abs(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        self.put(operands[0], f"np.abs({self.get(operands[1], type_)})", type_)

    def _do_neg(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        self.put(operands[0], f"-{self.get(operands[1], type_)}", type_)

    def _extreme(self, op: list[str], operands: list[Operand], name: str) -> None:
        type_ = canonical(self._type(op))
        wins = type_[0] == "f" and "NaN" not in op  # a number against a NaN
        function = f"np.f{name}" if wins else f"np.{name}imum"
        a, b = (self.get(operand, type_) for operand in operands[1:3])
        self.put(operands[0], f"{function}({a}, {b})", type_)

    def _do_min(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._extreme(op, operands, "min")

    def _do_max(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self._extreme(op, operands, "max")

    # ------------------------------------------------------------------ bits

    def _logic(self, op: list[str], operands: list[Operand]) -> None:
        type_ = self._type(op)
        type_ = "pred" if type_ == "pred" else f"u{8 * WIDTH[type_]}"
        values = [self.get(operand, type_) for operand in operands[1:]]
        expression = f"~{values[0]}" if op[0] == "not" else f" {JOINS[op[0]]} ".join(values)
        self.put(operands[0], expression, type_)

    def _do_lop3(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        if operands[0][0] == "pair":
            raise NotImplementedError("lop3 with a predicate")
        a, b, c = (self.get(operand, "u32") for operand in operands[1:4])
        self.put(operands[0], f"logic3({a}, {b}, {c}, {operands[4][1]})", "u32")

    def _do_shl(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = f"u{8 * WIDTH[self._type(op)]}"
        a, b = self.get(operands[1], type_), self.get(operands[2], "u32")
        self.put(operands[0], f"shift_left({a}, {b}, {8 * WIDTH[type_]})", type_)

    def _do_shr(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        a, b = self.get(operands[1], type_), self.get(operands[2], "u32")
        self.put(operands[0], f"shift_right({a}, {b}, {8 * WIDTH[type_]})", type_)

    def _do_shf(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        a, b, c = (self.get(operand, "u32") for operand in operands[1:4])
        self.put(operands[0], f"funnel_shift({a}, {b}, {c}, {'l' in op}, {'wrap' in op})", "u32")

    def _do_bfe(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        a, place, length = self.get(operands[1], type_), *(self.get(o, "u32") for o in operands[2:4])
        self.put(operands[0], f"extract_bits({a}, {place}, {length}, {8 * WIDTH[type_]})", type_)

    def _do_bfi(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        a, b = (self.get(operand, type_) for operand in operands[1:3])
        place, length = (self.get(operand, "u32") for operand in operands[3:5])
        self.put(operands[0], f"insert_bits({a}, {b}, {place}, {length}, {8 * WIDTH[type_]})", type_)

    def _do_clz(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self.put(operands[0], f"leading_zeros({self.get(operands[1], self._type(op))})", "u32")

    def _do_popc(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self.put(operands[0], f"np.bitwise_count({self.get(operands[1], self._type(op))}).astype(u4)", "u32")

    def _do_prmt(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        if op[-1] != "b32":
            raise NotImplementedError(".".join(op))
        a, b, c = (self.get(operand, "u32") for operand in operands[1:4])
        self.put(operands[0], f"permute_bytes({a}, {b}, {c})", "u32")

    # ------------------------------------------------------------------ comparison and choice

    def _comparison(self, op: list[str], operands: list[Operand]) -> str:
        type_ = canonical(self._type(op))
        word = next(part for part in op[1:] if part in {*COMPARISONS, *UNORDERED, "num", "nan", "equ", "neu"})
        a, b = self.get(operands[1], type_), self.get(operands[2], type_)
        if type_[0] == "f":
            a_nan, b_nan = f"np.isnan({a})", f"np.isnan({b})"
            special = {
                "num": f"~({a_nan} | {b_nan})",
                "nan": f"{a_nan} | {b_nan}",
                "ne": f"({a} != {b}) & ~({a_nan} | {b_nan})",
                "neu": f"{a} != {b}",
                "equ": f"({a} == {b}) | {a_nan} | {b_nan}",
            }
            if word in special:
                return special[word]
            if word in UNORDERED:
                return f"np.logical_not({a} {UNORDERED[word]} {b})"
        return f"{a} {COMPARISONS[word]} {b}"

    def _do_setp(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        holds = self._comparison(op, operands)
        join = next((JOINS[part] for part in op[2:] if part in JOINS), None)
        target = operands[0]
        if join is None and target[0] != "pair":
            self.put(target, holds, "pred")
            return
        value = self.assign(holds)
        other = f" {join} {self.get(operands[3], 'pred')}" if join else ""
        first, second = (target[1], target[2]) if target[0] == "pair" else (target, ("sink",))
        self.put(first, f"{value}{other}", "pred", alias=join is None)
        self.put(second, f"(~{value}){other}", "pred")

    def _do_selp(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        type_ = canonical(self._type(op))
        held = storage(self.program.registers[operands[0][1]])
        type_ = held if WIDTH[held] == WIDTH[type_] else type_
        p, a, b = self.get(operands[3], "pred"), self.get(operands[1], type_), self.get(operands[2], type_)
        self.put(operands[0], f"select({p}, {a}, {b})", type_)

    def _do_cvt(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        types = [part for part in op[1:] if part in WIDTH]
        if len(types) != 2 or len(operands) != 2 or "sat" in op or "ftz" in op:
            raise NotImplementedError(".".join(op))
        to, of = canonical(types[0]), canonical(types[1])
        mode, value = self._rounding(op), self.get(operands[1], of)
        from_float, to_float = of[0] == "f", to[0] == "f"
        if from_float and not to_float:
            self.put(operands[0], f"float_to_int({value}, {NUMPY[to]!r}, {mode!r})", to)
        elif from_float and to == of:
            expression = f"round_to_integer({value}, {mode!r})" if mode and mode[-1] == "i" else value
            self.put(operands[0], expression, to, alias=True)
        elif not from_float and not to_float and WIDTH[to] == WIDTH[of]:
            self.put(operands[0], f"{value}.view({NUMPY[to]})", to, alias=True)
        elif mode not in (None, "rn"):
            raise NotImplementedError(".".join(op))
        else:
            self.put(operands[0], f"{value}.astype({NUMPY[to]})", to)

    # ------------------------------------------------------------------ memory and warps

    def _space(self, op: list[str]) -> str:
        space = next((part for part in op[1:] if part in ("global", "shared", "local", "param")), None)
        if space is None:
            raise NotImplementedError("generic addresses")
        return space

    def _address(self, operand: Operand) -> tuple[str, int]:
        """Expression for the base, and a constant offset."""
        base, offset = operand[1], operand[2]
        if base[0] == "v":
            return self.constant(self.symbol(base[1]) + base[2] + offset, "u64"), 0
        if base[0] == "i":
            return self.constant(base[1] + offset, "u64"), 0
        width = WIDTH[storage(self.program.registers[base[1]])]
        value = self.get(base, f"u{8 * width}")
        if width == 4:  # such addresses wrap in 32 bits
            moved = f"({value} + {self.constant(offset, 'u32')})" if offset else value
            return self.derive(value, f"{moved}.astype(u8)", ("address", offset)), 0
        return value, offset

    def _access_type(self, op: list[str], operand: Operand) -> str:
        """The type of a load or store, that of the register if it is as wide."""
        type_ = canonical(self._type(op))
        if operand[0] == "r":
            held = storage(self.program.registers[operand[1]])
            type_ = held if WIDTH[held] == WIDTH[type_] else type_
        return type_

    def _is_strong(self, op: list[str]) -> bool:
        return any(part in op for part in ("volatile", "relaxed", "acquire", "release"))

    def _do_ld(self, instruction: Instruction, op: list[str], operands: list[Operand]) -> None:
        targets = operands[0][1] if operands[0][0] == "vec" else [operands[0]]
        type_ = self._access_type(op, next((t for t in targets if t[0] == "r"), ("sink",)))
        address, offset = self._address(operands[1])
        call = f"S.load_{self._space(op)}({instruction.site}, {address}, {offset}, {NUMPY[type_]}"
        values = self.assign(f"{call}, {len(targets)}, idx, n, {self._is_strong(op)})")
        for k, target in enumerate(targets):
            self.put(target, f"{values}[{k}]", type_)

    def _do_st(self, instruction: Instruction, op: list[str], operands: list[Operand]) -> None:
        sources = operands[1][1] if operands[1][0] == "vec" else [operands[1]]
        type_ = self._access_type(op, sources[0])
        address, offset = self._address(operands[0])
        values = "".join(f"{self.get(source, type_)}, " for source in sources)
        call = f"S.store_{self._space(op)}({instruction.site}, {address}, {offset}, {NUMPY[type_]}"
        self.lines.append(f"{call}, ({values}), idx, n, {self._is_strong(op)})")

    def _do_shfl(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        mode = next(part for part in op if part in ("up", "down", "bfly", "idx"))
        pair = operands[0] if operands[0][0] == "pair" else ("pair", operands[0], ("sink",))
        a, b, c = (self.get(operand, "u32") for operand in operands[1:4])
        both = self.assign(f"S.shuffle({mode!r}, {a}, {b}, {c}, idx, n)")
        self.put(pair[1], f"{both}[0]", "u32")
        if pair[2][0] == "r":
            self.put(pair[2], f"{both}[1]", "pred")

    def _do_vote(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        mode = next(part for part in op if part in ("all", "any", "uni", "ballot"))
        type_ = "u32" if mode == "ballot" else "pred"
        self.put(operands[0], f"S.vote({mode!r}, {self.get(operands[1], 'pred')}, idx, n)", type_)

    def _do_bar(self, _: Instruction, op: list[str], operands: list[Operand]) -> None:
        self.lines.append("S.synchronise_warp(idx)")

    _do_barrier = _do_bar
