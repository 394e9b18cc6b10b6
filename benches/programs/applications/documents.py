"""JSON, regular expressions and byte buffers: documents are made, written, read, searched and compressed."""
import json
import re
import zlib


def document(number):
    return {
        "id": number,
        "name": f"document {number * 7919 % 100003}",
        "sections": [
            {"title": f"section {part}", "words": [f"w{number * part % 997}" for _ in range(20)], "weight": number / (part + 1)}
            for part in range(number % 9)
        ],
        "flags": {f"flag{flag}": bool(number & 1 << flag) for flag in range(8)},
    }


def main():
    total = 0
    word = re.compile(r"\bw(\d+)\b")
    for round_number in range(4):
        documents = [document(number) for number in range(round_number, 12000, 2)]
        text = json.dumps(documents)
        again = json.loads(text)
        assert again == documents
        total += len(text) + sum(int(match.group(1)) for match in word.finditer(text))
        chunks = [text[at : at + 10000].encode() for at in range(0, len(text), 10000)]
        total += sum(len(zlib.compress(chunk, 1)) > 0 for chunk in chunks)
    print(total)


main()
