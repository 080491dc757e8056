"""Arithmetic of PTX on NumPy arrays and scalars, as the generated code calls it.

Integers are exact. f32 and f64 round to nearest as IEEE 754 says; fma in f64 is correctly rounded except
near underflow, in f32 it goes through f64 (a double rounding about once in 2^29).
"""

from __future__ import annotations

from typing import Any

import numpy as np

f2, f4, f8 = np.float16, np.float32, np.float64
u1, u2, u4, u8 = np.uint8, np.uint16, np.uint32, np.uint64
i1, i2, i4, i8 = np.int8, np.int16, np.int32, np.int64

Value = Any
"""A NumPy array over threads, or a NumPy scalar that all threads share."""


def select(p: Value, a: Value, b: Value) -> Value:
    """a where p holds, else b."""
    if p.ndim == 0:
        chosen = a if p else b
        return chosen.copy() if chosen.ndim else chosen
    return np.where(p, a, b)


# ---------------------------------------------------------------------------- floating point


def fma32(a: Value, b: Value, c: Value) -> Value:
    """a b + c in single precision."""
    return (np.multiply(a, b, dtype=f8) + c).astype(f4)


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """a + b rounded, and what rounding left out."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


_SPLITTER = f8(134217729.0)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """a b rounded, and what rounding left out."""
    p = a * b
    t = _SPLITTER * a
    a_high = t - (t - a)
    a_low = a - a_high
    t = _SPLITTER * b
    b_high = t - (t - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def fma64(a: Value, b: Value, c: Value) -> Value:
    """a b + c in double precision, rounded once (Boldo & Melquiond 2008, IEEE Trans Comput 57:462)."""
    p, e = two_product(a, b)
    th, tl = two_sum(c, e)
    vh, vl = two_sum(p, th)
    s, r = two_sum(tl, vl)
    s, r = np.atleast_1d(s), np.atleast_1d(r)
    bits = s.view(i8)
    away = np.where((r > 0) == (s > 0), i8(1), i8(-1))
    odd = (bits + np.where((r != 0) & ((bits & 1) == 0), away, i8(0))).view(f8)
    q = vh + odd
    good = np.isfinite(q) & (q != 0)
    result = q if good.all() else np.where(good, q, p + c)
    return result if np.broadcast(a, b, c).ndim else result[0]


def round_to_integer(x: Value, mode: str) -> Value:
    """A floating-point number without fraction."""
    return {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}[mode](x)


# ---------------------------------------------------------------------------- integers


def mulhi32(a: Value, b: Value) -> Value:
    """Upper half of the unsigned product."""
    return ((a.astype(u8) * b.astype(u8)) >> u8(32)).astype(u4)


def mulhis32(a: Value, b: Value) -> Value:
    """Upper half of the signed product."""
    return ((a.astype(i8) * b.astype(i8)) >> i8(32)).astype(i4)


def mulhi64(a: Value, b: Value) -> Value:
    """Upper half of the unsigned product."""
    m, s = u8(0xFFFFFFFF), u8(32)
    al, ah, bl, bh = a & m, a >> s, b & m, b >> s
    t = ah * bl + ((al * bl) >> s)
    w = al * bh + (t & m)
    return ah * bh + (t >> s) + (w >> s)


def divide(a: Value, b: Value) -> Value:
    """Quotient towards zero; all bits set where b is zero."""
    if a.dtype.kind == "i":
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        q = divide(np.abs(a).view(unsigned), np.abs(b).view(unsigned)).view(a.dtype)
        return np.where((a < 0) != (b < 0), -q, q)[()]
    t = a.dtype.type
    zero = b == 0
    return np.where(zero, t(np.iinfo(t).max), a // np.where(zero, t(1), b))[()]


def remainder(a: Value, b: Value) -> Value:
    """Remainder with the sign of a."""
    if a.dtype.kind == "i":
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        r = remainder(np.abs(a).view(unsigned), np.abs(b).view(unsigned)).view(a.dtype)
        return np.where(a < 0, -r, r)[()]
    zero = b == 0
    return np.where(zero, a, a % np.where(zero, a.dtype.type(1), b))[()]


def shift_left(a: Value, b: Value, width: int) -> Value:
    """a << b, zero from `width` bits on."""
    t = a.dtype.type
    if b.ndim == 0:
        return a << t(b) if b < width else a * t(0)
    return np.where(b < width, a << (b & b.dtype.type(width - 1)).astype(a.dtype), t(0))


def shift_right(a: Value, b: Value, width: int) -> Value:
    """a >> b, zero from `width` bits on; a signed a keeps its sign."""
    t = a.dtype.type
    if a.dtype.kind == "i":
        return a >> np.minimum(b, b.dtype.type(width - 1)).astype(a.dtype)
    if b.ndim == 0:
        return a >> t(b) if b < width else a * t(0)
    return np.where(b < width, a >> (b & b.dtype.type(width - 1)).astype(a.dtype), t(0))


def funnel_shift(a: Value, b: Value, c: Value, left: bool, wrap: bool) -> Value:
    """One half of the 64 bits b:a, shifted."""
    s = ((c & u4(31)) if wrap else np.minimum(c, u4(32))).astype(u8)
    v = (b.astype(u8) << u8(32)) | a.astype(u8)
    return ((v << s) >> u8(32)).astype(u4) if left else ((v >> s) & u8(0xFFFFFFFF)).astype(u4)


def leading_zeros(x: Value) -> Value:
    """Number of zero bits above the highest set one."""
    width, t = x.dtype.itemsize * 8, x.dtype.type
    for k in (1, 2, 4, 8, 16, 32):
        if k < width:
            x = x | (x >> t(k))
    return (width - np.bitwise_count(x).astype(i4)).astype(u4)


def _field(position: Value, length: Value) -> tuple[Value, Value, Value]:
    position, length = (position & u4(255)).astype(i4), (length & u4(255)).astype(i4)
    ones = np.where(
        length >= 64, u8(0xFFFFFFFFFFFFFFFF), (u8(1) << np.minimum(length, 63).astype(u8)) - u8(1)
    )
    return position, length, ones


def extract_bits(a: Value, position: Value, length: Value, width: int) -> Value:
    """`length` bits of a from `position` on, filled with the sign if a is signed."""
    position, length, ones = _field(position, length)
    place = np.minimum(position, 63)
    if a.dtype.kind == "u":
        shifted = np.where(position >= width, u8(0), a.astype(u8) >> place.astype(u8))
        return (shifted & ones).astype(a.dtype)[()]
    wide = a.astype(i8)
    top = np.clip(np.minimum(position + length - 1, width - 1), 0, 63)
    sign, mask = (wide >> top.astype(i8)) & i8(1), ones.astype(i8)
    shifted = (wide >> place.astype(i8)) & mask
    return np.where(length == 0, i8(0), np.where(sign == 1, shifted | ~mask, shifted)).astype(a.dtype)[()]


def insert_bits(a: Value, b: Value, position: Value, length: Value, width: int) -> Value:
    """b with `length` bits from `position` on taken from a."""
    position, length, ones = _field(position, length)
    place = np.minimum(position, 63).astype(u8)
    mask = np.where(position >= width, u8(0), ones << place)
    return ((b.astype(u8) & ~mask) | ((a.astype(u8) << place) & mask)).astype(a.dtype)[()]


def permute_bytes(a: Value, b: Value, c: Value) -> Value:
    """Four bytes of b:a, chosen by the nibbles of c."""
    v, result = (b.astype(u8) << u8(32)) | a.astype(u8), u8(0)
    for k in range(4):
        s = (c >> u4(4 * k)).astype(u8)
        byte = (v >> ((s & u8(7)) * u8(8))) & u8(255)
        byte = np.where((s & u8(8)) != 0, np.where(byte >= 128, u8(255), u8(0)), byte)
        result = result | (byte << u8(8 * k))
    return result.astype(u4)[()]


def logic3(a: Value, b: Value, c: Value, table: int) -> Value:
    """Any function of three bits, by its table."""
    result = a.dtype.type(0)
    for k in range(8):
        if table >> k & 1:
            result = result | ((a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c))
    return result


# ---------------------------------------------------------------------------- conversions


def float_to_int(x: Value, target: str, mode: str) -> Value:
    """Rounded and clamped to the target; a NaN becomes 0, or the lowest or highest bit in 64 bits."""
    t = np.dtype(target)
    rounded = round_to_integer(x.astype(f8), mode)
    info = np.iinfo(t)
    nan = np.isnan(x)
    big = rounded >= float(info.max) if t.itemsize == 8 else rounded > float(info.max)
    small = rounded <= float(info.min)
    result = np.where(nan | big | small, 0.0, rounded).astype(t)
    result = np.where(big, t.type(info.max), np.where(small, t.type(info.min), result))
    of_nan = (info.min or 1 << 63) if x.dtype == f8 or t.itemsize == 8 else 0
    if t.itemsize < 8 and of_nan == 1 << 63:
        of_nan = 1 << (8 * t.itemsize - 1)
    return np.where(nan, t.type(of_nan), result)[()]
