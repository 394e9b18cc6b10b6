"""Children by fork from a threaded process, and by exec."""
import multiprocessing
import os
import subprocess
import threading

stop = threading.Event()


def churn():
    held = []
    while not stop.is_set():
        held.append(bytearray(1000))
        if len(held) > 1000:
            held.clear()


def square(number):
    return number * number, len([bytearray(100) for _ in range(1000)])


background = threading.Thread(target=churn)
background.start()
context = multiprocessing.get_context("fork")
with context.Pool(4) as pool:
    print(sum(first for first, _ in pool.map(square, range(500))))
for number in range(30):
    child = os.fork()
    if child == 0:
        held = [bytearray(n) for n in range(2000)]
        os._exit(len(held) % 256)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2000 % 256
stop.set()
background.join()
text = subprocess.run(["sort", "-n"], input="\n".join(map(str, range(20000, 0, -1))), capture_output=True, text=True)
lines = text.stdout.split()
print(text.returncode, len(lines), lines[:3], lines[-1])
