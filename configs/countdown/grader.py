# The reward of a countdown puzzle: 1 for an expression that uses each of `numbers` once and has the value `target`, 0.1 for any other
# expression of numbers, else 0. The first line counts, and "maybe " may stand before the expression.
import ast
import json
import operator
import sys
from fractions import Fraction

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value(node, used):
    """The value of an expression, whose numbers are added to `used`."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](value(node.left, used), value(node.right, used))
    raise ValueError("neither a number nor a sum, difference, product or quotient")


def reward(record, completion):
    used = []
    try:
        answer = completion.partition("\n")[0].strip().removeprefix("maybe ").strip()
        tree = ast.parse(answer, mode="eval")
        right = value(tree.body, used) == record["target"] and sorted(used) == sorted(record["numbers"])
    except ZeroDivisionError:
        return 0.1
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0.0
    return 1.0 if right else 0.1


for line in sys.stdin:
    question = json.loads(line)
    print(json.dumps({"id": question["id"], "reward": reward(question["record"], question["completion"])}), flush=True)
