"""Threads that allocate, hand objects on, and end."""
import hashlib
import queue
import threading

jobs, results = queue.Queue(maxsize=100), queue.Queue()


def work():
    while (job := jobs.get()) is not None:
        number, text = job
        # hashlib releases the lock of the interpreter for buffers of this size: native code runs in parallel.
        results.put((number, hashlib.sha256(text * 50).hexdigest(), text[::-1]))


threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
for number in range(3000):
    jobs.put((number, str(number).encode() * 20))
for _ in threads:
    jobs.put(None)
for thread in threads:
    thread.join()
found = sorted(results.queue)
print(len(found), hashlib.sha256(repr(found).encode()).hexdigest())

# Many short threads.
total = []
for batch in range(100):
    short = [threading.Thread(target=lambda n=n: total.append(len("y" * n * 100))) for n in range(10)]
    for thread in short:
        thread.start()
    for thread in short:
        thread.join()
print(len(total), sum(total))
