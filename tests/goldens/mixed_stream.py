#!/usr/bin/env python3
"""Prints the positions of a mixed stream that tests/data/stream_test.cc expects (Stream.MixedPositionsAreFrozen).

Two files of equal weight, of 30 and of 50 examples with the ids 0.. and 1000..; data seed 42. Written from docs/data.md, in plain
Python.
"""
from make_noise_goldens import shuffle, stream

BLOCK = 1 << 16
FILES = [range(30), range(1000, 1050)]


def file_seed(seed, k):
    words = stream(seed, k, 5)
    low = next(words)
    return low | next(words) << 32


def ids(seed, first, count):
    share = BLOCK // 2
    for position in range(first, first + count):
        block, place = divmod(position, BLOCK)
        order = shuffle(file_seed(seed, 0), block, BLOCK)
        files = [slot // share for slot in order]
        file = files[place]
        epoch, index = divmod(block * share + files[:place].count(file), len(FILES[file]))
        yield FILES[file][shuffle(file_seed(seed, 1 + file), epoch, len(FILES[file]))[index]]


print(*ids(42, 0, 8))
print(*ids(42, 10**12, 4))
