"""A small interpreter in the interpreter: a stack machine, tuples and closures that live for a few steps, numbers of many digits."""


def run(code, count):
    stack, position, steps = [], 0, 0
    variables = {"i": 0, "sum": 0, "pairs": ()}
    while steps < count:
        operation, operand = code[position]
        position += 1
        steps += 1
        if operation == "load":
            stack.append(variables[operand])
        elif operation == "push":
            stack.append(operand)
        elif operation == "add":
            stack.append(stack.pop() + stack.pop())
        elif operation == "store":
            variables[operand] = stack.pop()
        elif operation == "pair":
            variables["pairs"] = (variables["i"], variables["pairs"] if variables["i"] % 50 else ())
        elif operation == "jump":
            position = operand
    return variables["sum"]


def main():
    code = [("load", "i"), ("push", 1), ("add", None), ("store", "i"), ("pair", None)]
    code += [("load", "sum"), ("load", "i"), ("add", None), ("store", "sum"), ("jump", 0)]
    total = run(code, 3000000)
    digits = 1
    for factor in range(1, 3000):
        digits *= factor
    print(total, digits % 1000003, sum(len(str(3**power)) for power in range(800)))


main()
