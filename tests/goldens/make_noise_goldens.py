#!/usr/bin/env python3
"""Writes tests/data/noise.txt: Philox words, normals, signs, initial values, direction seeds, shuffles, updates and
hashes as docs/numerics.md defines them, computed in exact rational arithmetic with one rounding an operation, and
independently of the C++ code (only the polynomials' coefficients are shared). Needs nothing beyond Python.

    python3 tests/goldens/make_noise_goldens.py > tests/data/noise.txt

A line is a kind followed by its arguments and results; floats are their bits, and all numbers but counts hexadecimal.
"""
import math
import struct
from fractions import Fraction

MASK32 = 2**32 - 1
MASK64 = 2**64 - 1


class Float:
    """An fp32 value: an exact rational, and the sign of a zero."""

    def __init__(self, value, negative_zero=False):
        self.value = Fraction(value)
        self.negative = self.value < 0 or (self.value == 0 and negative_zero)

    @staticmethod
    def from_bits(bits):
        value = struct.unpack("<f", struct.pack("<I", bits))[0]
        return Float(Fraction(value), math.copysign(1, value) < 0)

    def bits(self):
        value = -0.0 if self.value == 0 and self.negative else float(self.value)  # exact: fp32 is within double
        return struct.unpack("<I", struct.pack("<f", value))[0]

    def __neg__(self):
        return Float(-self.value, not self.negative)


def quantum(magnitude):
    """Spacing of fp32 at a positive rational."""
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    if magnitude < Fraction(2) ** exponent:
        exponent -= 1
    return Fraction(2) ** max(exponent - 23, -149)


def rounded(exact, negative_zero=False):
    """Nearest fp32 of an exact rational, ties to even (Python's round)."""
    if exact == 0:
        return Float(0, negative_zero)
    step = quantum(abs(exact))
    value = round(exact / step) * step
    assert abs(value) < Fraction(2) ** 128
    return Float(value, exact < 0)


def fma(a, b, c):
    exact = a.value * b.value + c.value
    product_negative = a.negative != b.negative
    both_zero = a.value * b.value == 0 and c.value == 0
    return rounded(exact, both_zero and product_negative and c.negative)


def mul(a, b):
    return rounded(a.value * b.value, a.negative != b.negative)


def sqrt(a):
    if a.value == 0:
        return a
    # 2^100 more than fp32's precision, with a sticky bit for what the integer root drops.
    scale = 2**400
    number = a.value * scale * scale
    whole = number.numerator // number.denominator
    root = math.isqrt(whole)
    exact = root * root == number
    return rounded(Fraction(2 * root + (0 if exact else 1), 2 * scale))


def constant(text):
    return Float(Fraction(float.fromhex(text)))


def power(exponent):
    return Float(Fraction(2) ** exponent)


def horner(coefficients, x):
    result = constant(coefficients[0])
    for c in coefficients[1:]:
        result = fma(result, x, constant(c))
    return result


def signed(word):
    return word - 2**32 if word >> 31 else word


def philox(counter, key):
    x, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(p1 >> 32) ^ x[1] ^ k[0], p1 & MASK32, (p0 >> 32) ^ x[3] ^ k[1], p0 & MASK32]
        k = [(k[0] + 0x9E3779B9) & MASK32, (k[1] + 0xBB67AE85) & MASK32]
    return x


def words(seed, block, third, purpose):
    return philox([block & MASK32, block >> 32, third, purpose], [seed & MASK32, seed >> 32])


LOG = ["0x1.0932b4p-2", "-0x1.1ed150p-2", "0x1.f25d72p-3", "-0x1.1ebe64p-2", "0x1.55a758p-2", "-0x1.99d1f2p-2",
       "0x1.fffe84p-2", "-0x1.555502p-1", "1.0"]
SIN = ["-0x1.2da156p-15", "0x1.465eeap-9", "-0x1.4abbbap-4", "-0x1.a32bb2p-26"]
COS = ["0x1.d4f7eep-19", "-0x1.55b2b6p-12", "0x1.03c1b0p-6", "-0x1.3bd3ccp-2", "1.0"]


def normal_pair(a, b):
    from_a = fma(rounded(Fraction(signed(a))), power(-32), power(-33))  # u, or u - 1
    u = rounded(from_a.value + 1) if a >> 31 else from_a
    m, exponent = u.value, 0
    two_thirds = Float.from_bits(0x3F2AAAAB).value
    while m < two_thirds:
        m, exponent = m * 2, exponent - 1
    f = from_a if exponent == 0 else Float(m - 1)  # m - 1 is exact
    assert rounded(f.value).value == f.value
    log_m = fma(mul(f, f), horner(LOG, f), mul(Float(-2), f))
    radius = sqrt(fma(Float(exponent), constant("-0x1.62e43p+0"), log_m))

    turn = (b + 2**29) & MASK32
    x = fma(rounded(Fraction((turn & (2**30 - 1)) - 2**29)), power(-29), power(-30))
    z = mul(x, x)
    s = fma(x, constant("0x1.921fb6p-1"), mul(x, horner(SIN, z)))
    c = horner(COS, z)
    quadrant = turn >> 30
    cosine = [c, -s, -c, s][quadrant]
    sine = [s, c, -s, -c][quadrant]
    return mul(radius, cosine), mul(radius, sine)


GAUSSIAN, RADEMACHER = 0, 1


def noise(kind, seed, tensor, element):
    if kind == GAUSSIAN:
        w = words(seed, element // 4, tensor, 0)
        return normal_pair(*w[element % 4 // 2 * 2:][:2])[element % 2]
    bit = words(seed, element // 128, tensor, 0)[element % 128 // 32] >> (element % 32) & 1
    return Float(-1 if bit else 1)


def update(theta, tensor, element, kind, lr, wd, directions):
    acc = Float(0)
    for seed, c in directions:
        acc = fma(c, noise(kind, seed, tensor, element), acc)
    decayed = fma(-mul(lr, wd), theta, theta)
    return fma(-lr, acc, decayed)


def mix64(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK64
    return x ^ (x >> 31)


def element_hash(tensor, element, bits):
    return mix64(mix64(mix64(tensor) ^ element) ^ bits)


def stream(seed, index, purpose):
    for block in range(2**32):
        yield from philox([block, index & MASK32, index >> 32, purpose], [seed & MASK32, seed >> 32])


def below(source, bound):
    while True:
        product = next(source) * bound
        if (product & MASK32) >= 2**32 % bound:
            return product >> 32


def shuffle(seed, epoch, n):
    source = stream(seed, epoch, 3)
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = below(source, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def line(kind, *fields):
    print(kind, *(f"{field:x}" for field in fields))


def main():
    some = [words(2026, block, 7, 4) for block in range(64)]  # arbitrary words

    for counter, key in [([0] * 4, [0] * 2), ([MASK32] * 4, [MASK32] * 2),
                         ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0])]:
        line("philox", *counter, *key, *philox(counter, key))

    # Words at the ends of their range and where the transform changes its branch: u = 1/2, u = 2/3 2^-k, the octants.
    ends = [0, 1, 2, MASK32, MASK32 - 1, 2**31, 2**31 - 1]
    a_words = ends + [2**24 + 1, 2**30, 0xAAAAAA80, 0xAAAAAAAA, 0xAAAAAAAB, 0xAAAAAB00, 0xAAAAAC00, 0x55555540,
                      0x55555555, 0x55555580, 0x2AAAAAAA, 0xFFFFFF00, 0xFFFF0000]
    b_words = ends + [2**29 - 1, 2**29, 2**30 - 1, 2**30, 3 * 2**29, 3 * 2**30 - 1, 3 * 2**30, 7 * 2**29, 5 * 2**29 - 1]
    pairs = [(a, b_words[i % len(b_words)]) for i, a in enumerate(a_words)]
    pairs += [(a_words[i * 7 % len(a_words)], b) for i, b in enumerate(b_words)]
    pairs += [(0, b) for b in ends] + [(MASK32, b) for b in ends]
    pairs += [(w[0], w[1]) for w in some[:40]]
    for a, b in pairs:
        first, second = normal_pair(a, b)
        line("normal", a, b, first.bits(), second.bits())

    big = 2**34 + 5  # an element whose block number fills both words of the counter
    for kind in (GAUSSIAN, RADEMACHER):
        for seed in (0, 42, 0xA4093822299F31D0):
            for tensor in (0, 3):
                for element in (0, 1, 2, 3, 4, 31, 33, 127, 128, 257, big, 2**41 + 2):
                    line("noise", kind, seed, tensor, element, noise(kind, seed, tensor, element).bits())

    # Many at once, as the sum of their element hashes: an ulp in one coefficient changes one normal in some hundreds.
    seed, tensor, count = 7, 1, 2**16
    total = 0
    for block in range(count // 4):
        w = words(seed, block, tensor, 0)
        for i, z in enumerate(normal_pair(w[0], w[1]) + normal_pair(w[2], w[3])):
            total += element_hash(tensor, 4 * block + i, z.bits())
    line("normals", seed, tensor, count, total & MASK64)

    for seed, tensor, element, fan_in in [(42, 0, 0, 288), (42, 0, 1, 288), (42, 1, 2, 4096), (43, 5, 31, 1), (43, 5, 7, 3),
                                          (2**63 + 1, 2**31, 2**35 + 3, 768)]:
        bound = rounded(1 / sqrt(Float(fan_in)).value)
        w = words(seed, element // 4, tensor, 1)[element % 4]
        uniform = fma(rounded(Fraction(signed(w))), power(-31), power(-32))
        line("initial", seed, tensor, element, fan_in, bound.bits(), mul(bound, uniform).bits())

    for seed, step, k in [(42, 0, 0), (42, 0, 1), (42, 1, 0), (43, 0, 0), (2**64 - 1, 2**40 + 9, 19)]:
        w = words(seed, step, k, 2)
        line("direction", seed, step, k, w[0] | w[1] << 32)

    for seed, index, bound in [(1, 0, 1), (1, 2, 10), (9, 2**32 + 1, 2**31 + 1), (9, 1, 3 * 2**30), (9, 1, MASK32)]:
        source = stream(seed, index, 4)
        line("below", seed, index, bound, *(below(source, bound) for _ in range(12)))

    for seed, epoch, n in [(0, 0, 0), (0, 0, 1), (42, 0, 2), (42, 0, 10), (42, 1, 10), (7, 2**32, 33)]:
        line("shuffle", seed, epoch, n, *shuffle(seed, epoch, n))

    def f32(x):
        return rounded(Fraction(x))

    cases = [
        # theta, tensor, element, kind, lr, wd, coefficients
        (0.25, 0, 0, GAUSSIAN, 1e-2, 0.0, [0.7]),
        (-0.125, 0, 1, GAUSSIAN, 1e-2, 0.1, [0.7, -1.3, 0.0, 2.5]),
        (3.0e-3, 1, 30, GAUSSIAN, 5e-3, 0.01, [1e-3 * k - 4e-3 for k in range(20)]),
        (0.1, 2, 257, RADEMACHER, 5e-3, 0.01, [0.3, 0.2, -0.9]),
        (0.1, 2, 258, RADEMACHER, 5e-3, 0.01, [0.3, 0.2, -0.9]),
        (0.1, 2, 258, GAUSSIAN, 1e-4, 0.5, [0.0, 0.0]),
        (0.0, 4, 5, GAUSSIAN, 1e-4, 0.5, [-1e-3, 1e-3]),
        (-0.0, 4, 6, GAUSSIAN, 1e-4, 0.5, []),
        (1e-40, 4, 7, GAUSSIAN, 1e-4, 0.5, [1e-36]),
        (1e4, 4, 8, GAUSSIAN, 3.0, 0.3, [1e6, -2e6]),
    ]
    for theta, tensor, element, kind, lr, wd, coefficients in cases:
        start = Float(0, True) if theta == 0 and math.copysign(1, theta) < 0 else f32(theta)
        directions = [(1000 + k, f32(c)) for k, c in enumerate(coefficients)]
        result = update(start, tensor, element, kind, f32(lr), f32(wd), directions)
        line("update", start.bits(), tensor, element, kind, f32(lr).bits(), f32(wd).bits(), result.bits(),
             len(directions), *(field for seed, c in directions for field in (seed, c.bits())))

    for tensor, element, bits in [(0, 0, 0), (0, 0, 2**31), (0, 1, 0x3F800000), (1, 0, 0x3F800000),
                                  (3, 2**33, 0xFF800000)]:
        line("hash", tensor, element, bits, element_hash(tensor, element, bits))


if __name__ == "__main__":
    main()
