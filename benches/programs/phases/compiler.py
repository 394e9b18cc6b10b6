"""A compiler that stays: a whole build whose syntax trees it keeps, single files again and again while somebody types, a
break, another branch, whose trees replace the old ones, and a break at the end. Needs PYTHONMALLOC=malloc."""
import ast
import pathlib
import time
import zlib

LIBRARY = pathlib.Path(ast.__file__).parent
SOURCES = sorted(LIBRARY.glob("*.py"))[:120]


def build(paths, mark):
    kept = {}
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace") + mark
        tree = ast.parse(text)
        kept[path] = (tree, compile(tree, str(path), "exec"))
    return kept


total = 0
for branch in range(2):
    mark = f"\nbranch = {branch}\n"
    index = build(SOURCES[branch * 40 : branch * 40 + 80], mark)
    for edit in range(40):
        path = SOURCES[branch * 40 + edit % 10]
        index.update(build([path], mark + f"edit = {edit}\n"))
        total += zlib.crc32(index[path][1].co_code)
        time.sleep(0.03)
    # What is kept of an idle project: the code, not the trees.
    index = {path: code for path, (_, code) in index.items()}
    for _ in range(25):
        time.sleep(0.1)
        compile("x = [n * n for n in range(10)]", "tick", "exec")
    total += len(index)
print(total)
