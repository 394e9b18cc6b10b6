"""An interpreter with a large heap: classes, dictionaries, lists and strings, a graph of them that is built, changed and dropped."""
import random


class Account:
    def __init__(self, number, owner):
        self.number = number
        self.owner = owner
        self.history = []
        self.tags = {"kind": "account", "level": number % 7}

    def post(self, amount, text):
        self.history.append(Entry(amount, text, self))
        if len(self.history) > 40:
            del self.history[:20]


class Entry:
    __slots__ = ("amount", "text", "account")

    def __init__(self, amount, text, account):
        self.amount = amount
        self.text = text
        self.account = account


def main():
    random.seed(1)
    accounts = [Account(number, f"owner {number * 7919 % 10007}") for number in range(30000)]
    for step in range(400000):
        account = accounts[random.randrange(len(accounts))]
        account.post(step % 1000 - 500, f"entry {step} of {account.owner}")
        if step % 20 == 0:
            accounts[random.randrange(len(accounts))] = Account(step, f"new owner {step}")
    by_owner = {}
    for account in accounts:
        by_owner.setdefault(account.owner, []).append(sum(entry.amount for entry in account.history))
    texts = sorted(entry.text for account in accounts for entry in account.history)
    words = {word for text in texts for word in text.split()}
    print(len(accounts), len(by_owner), sum(map(sum, by_owner.values())), len(texts), len(words))


main()
