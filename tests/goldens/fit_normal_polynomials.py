#!/usr/bin/env python3
"""Fits the polynomials of include/mezzo/core/noise.h (needs mpmath and numpy).

Each is a relative minimax fit by Remez exchange in 60-digit arithmetic, its coefficients then rounded to fp32. Where
the interval is [0, 1] they are rounded one after another, lowest degree first, and the remaining ones refitted after
each rounding, so that a rounding error of one is made up for by the next (on an interval around 0 the higher powers
alone are no Haar system, and a refit does not converge). Printed: every coefficient as a hexadecimal float, and the
largest relative error in exact arithmetic; the rounding of the fp32 evaluation comes on top, and
tests/core/noise_test.cc measures both together.
"""
import mpmath as mp
import numpy as np

mp.mp.dps = 60


def f32(x):
    """Nearest fp32 of a real number. Twice rounded (double, then float), which the fit that follows absorbs."""
    return np.float32(float(x))


def remez(target, weight, low, high, powers, rounds=20):
    """Coefficients a with max |weight(x) (sum a_i x^powers_i - target(x))| minimal on [low, high]."""
    n = len(powers)
    steps = 601  # odd: 0 is not on the grid, where the logarithm's weight vanishes
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / steps) for i in range(steps + 1)]
    values = [(x, target(x), weight(x)) for x in grid]
    nodes = [values[round(steps * (i + 0.5) / (n + 1))] for i in range(n + 1)]
    for _ in range(rounds):
        system = mp.matrix(n + 1, n + 1)
        right = mp.matrix(n + 1, 1)
        for i, (x, t, w) in enumerate(nodes):
            for j, p in enumerate(powers):
                system[i, j] = w * x**p
            system[i, n] = (-1) ** i
            right[i] = w * t
        solution = mp.lu_solve(system, right)
        error = [w * (sum(solution[j] * x**p for j, p in enumerate(powers)) - t) for x, t, w in values]
        # One extremum a run of equal sign; of more than n + 1 runs drop the smaller end.
        extrema = []
        for i, e in enumerate(error):
            if extrema and mp.sign(error[extrema[-1]]) == mp.sign(e):
                if abs(e) > abs(error[extrema[-1]]):
                    extrema[-1] = i
            else:
                extrema.append(i)
        while len(extrema) > n + 1:
            extrema.pop(0 if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else -1)
        if len(extrema) < n + 1:
            break
        nodes = [values[i] for i in extrema]
    return [solution[j] for j in range(n)]


def fit(name, target, weight, low, high, degree):
    fixed = []
    if low < 0:
        fixed = [mp.mpf(float(f32(c))) for c in remez(target, weight, low, high, list(range(degree + 1)))]
    while len(fixed) <= degree:
        known = list(fixed)
        rest = remez(lambda x: target(x) - sum(c * x**i for i, c in enumerate(known)), weight, low, high,
                     list(range(len(fixed), degree + 1)))
        fixed.append(mp.mpf(float(f32(rest[0]))))
    worst = mp.mpf(0)
    for i in range(4001):
        x = low + (high - low) * i / 4000
        worst = max(worst, abs(weight(x) * (sum(c * x**j for j, c in enumerate(fixed)) - target(x))))
    print(f"{name}: largest relative error {float(worst):.2e}")
    for j, c in enumerate(fixed):
        print(f"  x^{j}: {float(c).hex()}  // {float(c):.9g}")


def main():
    third = mp.mpf(1) / 3
    tiny = mp.mpf(10) ** -12

    # -2 log(1 + f) = f^2 Q(f) - 2f on [-1/3, 1/3], relative to the whole.
    def q(f):
        if abs(f) < mp.mpf(10) ** -8:
            return 1 - 2 * f / 3 + f * f / 2
        return (-2 * mp.log1p(f) + 2 * f) / f**2

    fit("-2 log1p, Q", q, lambda f: f * f / abs(2 * mp.log1p(f)) if abs(f) > tiny else abs(f) / 2, -third, third, 8)

    # sin(pi/4 x) = x (pi/4 + S(z)), cos(pi/4 x) = 1 + z C(z), z = x^2 in [0, 1]. pi/4 = high + low: `high` is the fp32
    # next to it, `low` the first coefficient of S.
    quarter = mp.pi / 4
    high = mp.mpf(float(f32(quarter)))
    print(f"pi/4 high: {float(high).hex()}  // {float(high):.9g}")

    def sine(z):
        x = mp.sqrt(z)
        return (mp.sin(quarter * x) / x if x > tiny else quarter) - high

    def cosine(z):
        return (mp.cos(quarter * mp.sqrt(z)) - 1) / z if z > tiny else -quarter**2 / 2

    fit("sin, S", sine, lambda z: 1 / (sine(z) + high), mp.mpf(0), mp.mpf(1), 3)
    fit("cos, C", cosine, lambda z: z / mp.cos(quarter * mp.sqrt(z)), mp.mpf(0), mp.mpf(1), 3)
    print(f"-2 log 2: {float(f32(-2 * mp.log(2))).hex()}")


if __name__ == "__main__":
    main()
