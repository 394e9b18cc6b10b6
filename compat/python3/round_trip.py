"""A big structure through json and pickle and back."""
import hashlib
import json
import pickle
import random

numbers = random.Random(1)


def tree(depth):
    if depth == 0:
        return numbers.choice([None, True, numbers.random(), "x" * numbers.randrange(200), numbers.randrange(1 << 70)])
    if depth % 2:
        return {f"key {i} {numbers.randrange(1000)}": tree(depth - 1) for i in range(7)}
    return [tree(depth - 1) for _ in range(7)]


structure = [tree(5) for _ in range(3)]
text = json.dumps(structure, sort_keys=True)
assert json.loads(text) == structure
assert pickle.loads(pickle.dumps(structure)) == structure
print(len(text), hashlib.sha256(text.encode()).hexdigest())

# Growing buffers and many lifetimes.
held = {}
for step in range(100_000):
    held[numbers.randrange(5000)] = bytearray(numbers.randrange(1, 3000))
print(len(held), sum(map(len, held.values())))
big = b""
for step in range(64):
    big += bytes([step]) * 100_000
print(len(big), hashlib.sha256(big).hexdigest())
