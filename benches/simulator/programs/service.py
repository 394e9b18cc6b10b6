"""A service in Python, every object from malloc: bursts of small requests, reports over large documents, idle times."""

import json
import random
import time

random.seed(7)


def document(rows):
    return [{"id": row, "name": f"part {row * 7919 % 10007}", "tags": [str(row % 31)] * (row % 5), "price": row * 0.37} for row in range(rows)]


def requests(count):
    sessions = {}
    for number in range(count):
        text = json.dumps({"user": number % 500, "path": "/" + "x" * random.randrange(200)})
        sessions[number % 500] = json.loads(text)
        if number % 400 == 0:
            time.sleep(0.05)
    return len(sessions)


def report(rows):
    text = json.dumps(document(rows))
    parts = json.loads(text)
    parts.sort(key=lambda part: part["name"])
    return len(json.dumps(parts[: rows // 2]))


for _shift in range(2):
    requests(8000)
    time.sleep(1)
    for _report in range(6):
        report(4000)
        time.sleep(0.7)
    for _check in range(20):
        requests(20)
        time.sleep(0.15)
